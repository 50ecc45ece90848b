"""Adam, Lion and LAMB in four other languages than ours: `python -m benchmarks.languages`.

It needs ``optax`` and ``heavyball`` (and g++, for what torch compiles), and leaves out what is not installed.
`--only optax LAMB` measures these and keeps what the page has of the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..fresh_process import ROOT, measured_by
from ..machine import this_machine
from ..marks import Marks
from ..table import Table, three_digits
from ..workloads import MODELS
from .measured import LANGUAGES, OPTIMIZERS, lines

RESULTS = ROOT / "benchmarks" / "results" / "languages.json"
PAGE = ROOT / "docs" / "comparison.md"
MARKS = Marks("<!-- measured: written by python -m benchmarks.languages -->", "<!-- end of measured -->")
MODEL_NAMES = ("mlp", "resnet18")
THREADS = (1, 2)
OURS = "torchopt_course"


def key(language: str, optimizer: str, model: str, threads: int) -> str:
    return f"{language} {optimizer} {model} {threads}"


def pairs() -> list[tuple[str, str, str, int]]:
    return [
        (language, optimizer, model, threads)
        for language in LANGUAGES
        if language != OURS
        for optimizer in OPTIMIZERS
        for model in MODEL_NAMES
        for threads in THREADS
    ]


def tables(found: dict[str, dict[str, Any]]) -> list[Table]:
    """For each model: lines, microseconds with one and two threads, and how many times ours that is."""
    made = []
    for model in MODEL_NAMES:
        rows = []
        for optimizer in OPTIMIZERS:
            rows.append([optimizer, OURS, str(lines(OURS, optimizer)), *[""] * len(THREADS)])
            for language in LANGUAGES:
                both = [found.get(key(language, optimizer, model, threads)) for threads in THREADS]
                if language != OURS and any(both):
                    count = next(each["lines"] for each in both if each)
                    rows.append([optimizer, language, str(count), *map(_cell, both)])
        headings = ["optimizer", "language", "lines", *(f"{n} thread{'s' * (n > 1)}" for n in THREADS)]
        made.append(Table(MODELS[model].title, headings, rows).without_empty_columns())
    return made


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    times = f"{three_digits(found['theirs']['median'])} ({three_digits(found['ours']['median'])})"
    return f"{times}, {found['ratio']['median']:.1f} times"


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """What stands between the marks of the page."""
    versions = {LANGUAGES[each["language"]].distribution: each["version"] for each in found.values()}
    worst = max(each["difference"] for each in found.values())
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts = [
        "Microseconds of a step on fixed gradients in float32, each in turns with ours in a process of its "
        "own. In brackets what ours took in these turns, then how many times as long the other takes: above "
        f"1, ours is faster. {this_machine().title}; {named}. "
        f"Five larger steps of each end where ours do, up to {worst:.0e} of what they have changed.",
        *(each.as_markdown().replace("## ", "### ") for each in tables(found)),
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.languages", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="optax, LAMB, mlp, 2 ...")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each pair (default 4)")
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    words = set(options.only)
    for language, optimizer, model, threads in pairs():
        given = (language, optimizer, model, str(threads))
        if words - set(given):
            continue
        case = language, optimizer, model, f"--threads={threads}", f"--seconds={options.seconds}"
        new = measured_by("benchmarks.languages.measured", *case)
        if "skipped" in new:
            print(f"{' '.join(given)}: {new['skipped']}", file=sys.stderr)
            continue
        found[key(language, optimizer, model, threads)] = new
        print(f"{' '.join(given)}: {_cell(new)}, {new['difference']:.0e}", flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(MARKS.rewritten(page, markdown(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
