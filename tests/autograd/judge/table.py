"""The judge's findings as docs/autograd_operators.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from .cases import MODULES, OPERATORS
from .running import Report
from .verdict import EQUAL, REFUSED, SKIPPED

PATH = Path(__file__).parents[3] / "docs" / "autograd_operators.md"

HEAD = """# What the mini autograd differentiates

Written by `python -m tests.autograd.judge`; do not edit.

PyTorch tests its own operators and modules by a data base of examples (`torch.testing._internal`, OpInfo
and ModuleInfo). Here each example is run through this autograd and through torch's: called as a function, as
a method, in place, by its aliases and with its arguments by name; in float64, some in float32 and bfloat16;
at random points, and where functions have kinks, bounds and ties. Compared are values, dtypes, shapes, and
the derivatives: reverse, forward, forward over reverse, reverse over reverse. A case is equal to torch or it
is refused, by an error that names the operation.

Torch {version}: {cases} cases, {equal} equal, {refused} refused{faults}.

| | whole | in part | refused | sum |
|---|---|---|---|---|
| operators | {operators} |
| modules | {modules} |

Most operators have no entry of their own in the table of primitives. Torch takes them apart
(`torchopt_course/autograd/decompose.py`), and what they are made of has one.
"""


def write(reports: Sequence[Report], path: Path = PATH) -> None:
    path.write_text(text(reports), encoding="utf-8")


def text(reports: Sequence[Report]) -> str:
    reports = [each for each in reports if each.kind != "none"]
    cases = sum((each.counts for each in reports), Counter[str]())
    faults = [each for each in reports if each.kind == "FAULT"]
    parts = [
        HEAD.format(
            version=torch.__version__.split("+")[0],
            cases=sum(cases.values()) - cases[SKIPPED],
            equal=cases[EQUAL],
            refused=cases[REFUSED],
            faults=f", {sum(len(each.faults) for each in faults)} faults" if faults else "",
            operators=_row([each for each in reports if each.name in OPERATORS]),
            modules=_row([each for each in reports if each.name in MODULES]),
        )
    ]
    for what, kinds in (("Operators", OPERATORS), ("Modules", MODULES)):
        of_kind = [each for each in reports if each.name in kinds]
        parts.append(_section(f"{what} in part", [each for each in of_kind if each.kind == "in part"]))
        parts.append(_section(f"{what} refused", [each for each in of_kind if each.kind == "refused"]))
        parts.append(_section(f"{what} at fault", [each for each in of_kind if each.kind == "FAULT"]))
        names = sorted(each.name for each in of_kind if each.kind == "whole")
        parts.append(f"## {what} whole\n\n" + ", ".join(f"`{name}`" for name in names) + "\n")
    return "\n".join(part for part in parts if part)


def _row(reports: Sequence[Report]) -> str:
    counts = Counter(each.kind for each in reports)
    return " | ".join(str(counts[kind]) for kind in ("whole", "in part", "refused")) + f" | {len(reports)}"


def _section(title: str, reports: Sequence[Report]) -> str:
    if not reports:
        return ""
    lines = [f"## {title}\n", "| | equal | of | why |", "|---|---|---|---|"]
    for each in sorted(reports, key=lambda report: report.name):
        total = sum(n for kind, n in each.counts.items() if kind != SKIPPED)
        lines.append(f"| `{each.name}` | {each.counts[EQUAL]} | {total} | {_why(each)} |")
    return "\n".join(lines) + "\n"


def _why(report: Report) -> str:
    if report.faults:
        return report.faults[0].replace("|", "\\|")
    reason = max(report.reasons, key=lambda each: report.reasons[each])
    made_of = re.search(r"which is made of ([\w.]+)", reason)
    if made_of:
        return f"no derivative is known for `{made_of[1].rstrip('.')}`"
    return re.sub(r" Compute with.*| or add it.*", "", reason).split(": variables")[0].replace("|", "\\|")
