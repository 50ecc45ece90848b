"""The page that says what the kit has found."""

from __future__ import annotations

from typing import Any

from torchopt_course.testing.optimizers.catalogue import PROMISES

Rows = dict[str, dict[str, str | None]]

# Faults that are known, or done on purpose, and what to make of them.
REMARKS_BEGIN = "<!-- remarks -->"
REMARKS_END = "<!-- end of remarks -->"
ONLY_OURS = {"reference", "fused engine", "engines agree", "engines in half", "cuda kernel"}
LONGEST = 230


def page(results: dict[str, Any], remarks: str) -> str:
    """Markdown: how many fail each check, and for each library a row for each optimizer and its faults."""
    numbers = {promise.name: i for i, promise in enumerate(_promises(), 1)}
    parts = [
        "# What the checks find in everybody's optimizers\n",
        "`torchopt_course.testing.optimizer_checks` asks for nothing but the public face of "
        "`torch.optim.Optimizer`. This is what it says of each optimizer of five libraries, made as its "
        "constructor makes it (a learning rate of 0.01 where there is no default), on the CPU. It is "
        "generated: `python -m benchmarks.optimizer_checks`, torch "
        f"{results['torch.optim']['version']}. A ✗ says that a check fails, not that training would; what is "
        "a fault for a resumed run or a frozen layer may never matter to you. Where there is no sign, the "
        "check does not apply, or took too long.\n",
        REMARKS_BEGIN,
        remarks,
        REMARKS_END + "\n",
        "## The checks, and how many fail them\n",
        _summary(results, numbers),
    ]
    for library, result in results.items():
        parts += [f"## {library} {result['version']}\n", _matrix(result["rows"], numbers)]
        parts += [_faults(result["rows"])]
    return "\n".join(parts)


def remarks_of(old: str) -> str:
    """What people have written into the page, which stays."""
    if REMARKS_BEGIN not in old:
        return ""
    return old.partition(REMARKS_BEGIN)[2].partition(REMARKS_END)[0].strip("\n")


def _promises() -> list[Any]:
    return [promise for promise in PROMISES if promise.name not in ONLY_OURS]


def _checked(rows: Rows) -> Rows:
    return {name: row for name, row in rows.items() if "" not in row}


def _summary(results: dict[str, Any], numbers: dict[str, int]) -> str:
    lines = [
        "| | check | what must hold | " + " | ".join(results) + " |",
        "|---:|---|---|" + "---:|" * len(results),
    ]
    for promise in _promises():
        cells = []
        for result in results.values():
            verdicts = [row.get(promise.name) for row in _checked(result["rows"]).values()]
            asked = [verdict for verdict in verdicts if verdict is not None]
            cells.append(f"{sum(map(bool, asked))} of {len(asked)}" if asked else "")
        lines.append(f"| {numbers[promise.name]} | {promise.name} | {promise.words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _matrix(rows: Rows, numbers: dict[str, int]) -> str:
    """A row for each optimizer: · passes, ✗ fails, nothing where the check does not apply."""
    lines = [
        "| optimizer | " + " | ".join(map(str, numbers.values())) + " |",
        "|---|" + ":-:|" * len(numbers),
    ]
    for name, row in _checked(rows).items():
        signs = ["" if (verdict := row.get(check)) is None else "✗" if verdict else "·" for check in numbers]
        lines.append(f"| {name} | {' | '.join(signs)} |")
    lines += [f"\n{name} is not checked: it {row['']}." for name, row in rows.items() if "" in row]
    return "\n".join(lines) + "\n"


def _faults(rows: Rows) -> str:
    """Each fault in one line; what is alike but for its numbers, together."""
    lines = []
    for promise in _promises():
        alike: dict[str, tuple[list[str], str]] = {}
        for name, row in _checked(rows).items():
            if fault := row.get(promise.name):
                words = fault.partition(f"{promise.name}: ")[2] or fault
                kind = words.partition(":")[0].partition("differ first")[0][:60]
                alike.setdefault(kind, ([], words))[0].append(name)
        for names, words in alike.values():
            text = words if len(words) <= LONGEST else words[:LONGEST].rsplit(" ", 1)[0] + " ..."
            text = text.replace("|", "\\|").replace("<", "&lt;")
            example = "" if len(names) == 1 else f"{names[0]}: "
            lines.append(f"- **{promise.name}**, {', '.join(names)}. {example}{text}")
    return "\n".join(lines) + "\n"
