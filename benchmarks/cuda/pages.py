"""The tables of ``cuda.md``: the training loop first."""

from __future__ import annotations

from collections.abc import Sequence

from ..table import Table, three_digits
from ..workloads import OURS
from .blocks import Times
from .others import FIRST_STEP, STORING, THEIRS, WHOLE_TENSORS
from .record import Record, Row
from .steps import ALONE, GRAPH, IN_THE_LOOP, MEMORY

TORCHS = ("default", "fused")
HOST, WHOLE = 0, 1


def tables(record: Record) -> list[Table]:
    loop = record.of(IN_THE_LOOP)
    found = [
        _against_torch(
            "In the training loop: whole iteration",
            loop,
            WHOLE,
            "zero_grad, forward, backward and step; the host waits for the device after a block of 5 to 20.",
        ),
        _against_torch(
            "In the training loop: step(), on the host",
            loop,
            HOST,
            "What a call keeps the host, which only launches. Where a network is small, the host is what the "
            "device waits for.",
        ),
        _against_torch(
            "Alone: step() on fixed gradients",
            record.of(ALONE),
            WHOLE,
            "Steps in a row until the device has done them: the host's time or the device's, whichever is "
            "longer. The share is ours: the bytes that no step can avoid to move, at the rate of a copy.",
        ),
        _against_torch(
            "In a CUDA graph: step() with capturable=True, captured once and replayed",
            record.of(GRAPH),
            WHOLE,
            "What the device alone takes.",
        ),
        storing_table(record),
        _whole_tensors(record.of(WHOLE_TENSORS)),
        _memory(record.of(MEMORY)),
        _first_step(record.of(FIRST_STEP)),
    ]
    return [table.without_empty_columns() for table in found if table.rows]


def _against_torch(title: str, rows: Sequence[Row], part: int, note: str) -> Table:
    headings = ["model", "optimizer", *(f"{name} µs" for name in (*TORCHS, OURS))]
    headings += [*(f"{name} / {OURS}" for name in TORCHS), "quartiles of the last", "of copy bandwidth"]
    return Table(
        title,
        headings,
        [
            [
                *(row.model, row.what),
                *(_time(row.times.get(name), part) for name in (*TORCHS, OURS)),
                *(_ratio(row.ratios.get(name), part) for name in TORCHS),
                _quartiles(row, part),
                _share(row),
            ]
            for row in rows
        ],
        f"{note} Torch's default on a GPU is its foreach.",
    )


def storing_table(record: Record) -> Table:
    return Table(
        f"Ways of storing: Adam's step, GPT-2 small, {record.device}",
        [
            "float32, if nothing else is said",
            "bytes of states",
            "ours, ms",
            "torch fused, ms",
            "torch / ours",
            "engine",
        ],
        [
            [
                row.what,
                f"{row.numbers['bytes of states']:.2f}",
                *(three_digits(row.times[name].whole.median / 1000) for name in (OURS, "fused")),
                _ratio(row.ratios.get("fused"), WHOLE),
                engines_of(row),
            ]
            for row in record.of(STORING)
        ],
        "Beside torch's fused Adam with everything in float32.",
    )


def _whole_tensors(rows: Sequence[Row]) -> Table:
    return Table(
        "Rules with numbers of whole tensors",
        ["model", "ours / theirs", "ours µs", "theirs µs", "theirs / ours", "ours on the host, µs", "engine"],
        [
            [
                *(row.model, row.what),
                *(_time(row.times.get(name), WHOLE) for name in (OURS, THEIRS)),
                _ratio(row.ratios.get(THEIRS), WHOLE),
                _time(row.times[OURS], HOST),
                engines_of(row),
            ]
            for row in rows
        ],
        "Steps in a row on fixed gradients.",
    )


def _memory(rows: Sequence[Row]) -> Table:
    measured = [[row.what, f"{row.numbers['peak MB']:,.0f}"] for row in rows if "peak MB" in row.numbers]
    note = "The transformer in the loop: parameters, gradients, states, activations, temporary tensors."
    return Table("Peak memory of a training, Adam", ["", "peak, MB"], measured, note)


def _first_step(rows: Sequence[Row]) -> Table:
    found = [
        [name.removesuffix(" s"), three_digits(value)] for row in rows for name, value in row.numbers.items()
    ]
    return Table("Start: Adam on LeNet, without imports", ["", "seconds"], found)


def engines_of(row: Row) -> str:
    """The names of those that took a part of our step."""
    return ", ".join(dict.fromkeys(line.partition(":")[0] for line in row.engine.splitlines()))


def markdown(record: Record) -> str:
    facts = [f"{name} {value:,.0f}" for name, value in record.facts.items()]
    slow = {engines_of(row) for row in record.rows.values()} - {"fused CUDA engine", ""}
    parts = [
        f"# On a GPU: {record.device}",
        f"- {record.date}\n- {', '.join(f'{name} {value}' for name, value in record.versions.items())}\n"
        f"- {', '.join(facts)}\n- medians, ratios within rounds of contenders in turns; above 1, ours is "
        "faster; `python -m benchmarks.cuda` wrote this",
        *([f"Some steps were taken by {', '.join(sorted(slow))}; see the json."] if slow else []),
        *(table.as_markdown() for table in tables(record)),
    ]
    notes = [f"{label}: {note}" for label, row in record.rows.items() for note in row.notes]
    if notes:
        parts.append("## Who could not take part\n\n" + "\n".join(f"- {note}" for note in notes))
    if record.failed:
        parts.append(
            "## Not measured\n\n" + "\n".join(f"- {label}: {why}" for label, why in record.failed.items())
        )
    return "\n\n".join(parts) + "\n"


def _time(times: Times | None, part: int) -> str:
    return "" if times is None else three_digits(times[part].median)


def _ratio(times: Times | None, part: int) -> str:
    return "" if times is None else f"{times[part].median:.2f}"


def _quartiles(row: Row, part: int) -> str:
    last = [row.ratios[name][part] for name in TORCHS if name in row.ratios][-1:]
    return "".join(f"{each.lower:.2f} to {each.upper:.2f}" for each in last)


def _share(row: Row) -> str:
    share = row.numbers.get("of copy bandwidth")
    return "" if share is None else f"{share:.0%}"
