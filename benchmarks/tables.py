"""The tables of a report, for the terminal and as markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .bandwidth import Bandwidth
from .cases import BATCH_SIZE, Case
from .report import FUSED, Report
from .startup import Startup
from .workloads import MODELS, OURS, TORCH_CONTENDERS

SHARE_NOTE = (
    "Share: of the machine's streaming bandwidth, at the bytes that no step can avoid to move; "
    "it can exceed 100 % where the mix of reads and writes is another than Adam's."
)
NUMBER = re.compile(r"[\d.,]+( ?%)?")


@dataclass(frozen=True)
class Table:
    """A title, the rows under their headings, and a sentence on how to read them."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    note: str = ""

    def without_empty_columns(self) -> Table:
        kept = [c for c in range(len(self.headings)) if any(row[c] for row in self.rows)]

        def pick(cells: list[str]) -> list[str]:
            return [cells[c] for c in kept]

        return Table(self.title, pick(self.headings), [pick(row) for row in self.rows], self.note)

    def as_text(self) -> str:
        lines = self._aligned("  ")
        rule = "-" * max(map(len, lines))
        parts = [self.title, rule, lines[0], rule, *lines[1:], *([self.note] if self.note else [])]
        return "\n".join(part.rstrip() for part in parts)

    def as_markdown(self) -> str:
        lines = [f"| {line} |" for line in self._aligned(" | ")]
        marks = [
            "-" * width if is_text else "-" * (width - 1) + ":"
            for width, is_text in zip(self._widths(), self._are_text(), strict=True)
        ]
        table = "\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]])
        return "\n\n".join([f"## {self.title}", table, *([self.note] if self.note else [])])

    def _widths(self) -> list[int]:
        return [max(3, *map(len, column)) for column in zip(self.headings, *self.rows, strict=True)]

    def _are_text(self) -> list[bool]:
        """Which columns hold words: they are aligned on the left."""
        columns = zip(*self.rows, strict=True)
        return [any(cell and not NUMBER.fullmatch(cell) for cell in column) for column in columns]

    def _aligned(self, separator: str) -> list[str]:
        shapes = list(zip(self._widths(), self._are_text(), strict=True))
        return [
            separator.join(
                cell.ljust(width) if is_text else cell.rjust(width)
                for cell, (width, is_text) in zip(cells, shapes, strict=True)
            )
            for cells in (self.headings, *self.rows)
        ]


def three_digits(value: float) -> str:
    """Three digits that count, thousands set apart: 0.0123, 12.3, 1,230."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:#.3g}".rstrip(".")


def case_tables(report: Report, cases: list[Case], title: str, what: str) -> list[Table]:
    """One table for each number of threads, the largest first."""
    headings = [
        *("model", "optimizer"),
        *(f"{name} µs" for name in (*TORCH_CONTENDERS, OURS)),
        *(f"{name} / ours" for name in TORCH_CONTENDERS),
        *(f"{name} share" for name in FUSED),
    ]
    note = f"Median microseconds of {what}, then torch's time divided by ours: above 1, ours is faster."
    tables = []
    for count in sorted({case.threads for case in cases}, reverse=True):
        of_count = [case for case in cases if case.threads == count]
        rows = [_figures(case, report.shares(case)) for case in of_count]
        how_to_read = f"{note}\n{SHARE_NOTE}" if any(map(report.shares, of_count)) else note
        table = Table(f"{title}, {_threads(count)}", headings, rows, how_to_read)
        tables.append(table.without_empty_columns())
    return tables


def _figures(case: Case, shares: Mapping[str, float]) -> list[str]:
    """Names, times, ratios and shares, empty where there is no such contender."""
    times = [case.times.get(name) for name in (*TORCH_CONTENDERS, OURS)]
    ratios = [case.ratios.get(name) for name in TORCH_CONTENDERS]
    return [
        *(MODELS[case.model].title, case.optimizer),
        *(three_digits(time.median) if time else "" for time in times),
        *(f"{ratio.median:.2f}" if ratio else "" for ratio in ratios),
        *(f"{shares[name]:.0%}" if name in shares else "" for name in FUSED),
    ]


def bandwidth_table(bandwidths: list[Bandwidth]) -> Table:
    return Table(
        "Streaming bandwidth: three float32 streams updated in place, a fourth read",
        ["threads", "GB/s", "by"],
        [[str(limit.threads), f"{limit.gigabytes_per_second:.1f}", limit.how] for limit in bandwidths],
    )


def startup_table(startup: Startup) -> Table:
    return Table(
        "Start of a process",
        ["what", "median s", "to torch's"],
        [
            ["process that only imports torch", f"{startup.import_torch.median:.3f}", ""],
            [
                "process that only imports torchopt_course",
                f"{startup.import_ours.median:.3f}",
                f"{startup.ratio.median:.3f}",
            ],
            ["first step() ever (compiles)", f"{startup.first_step_ever.median:.3f}", ""],
            ["first step() of the next process", f"{startup.first_step_cached.median:.3f}", ""],
        ],
        "First steps: Adam on LeNet, without imports and construction.",
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def step_tables(report: Report) -> list[Table]:
    return case_tables(report, report.steps, "Step alone", "a step")


def iteration_tables(report: Report) -> list[Table]:
    title = f"Whole training iteration, batch of {BATCH_SIZE}"
    return case_tables(report, report.iterations, title, "zero_grad, forward, backward and step together")


def all_tables(report: Report) -> list[Table]:
    return [
        *step_tables(report),
        *iteration_tables(report),
        *([bandwidth_table(report.bandwidths)] if report.bandwidths else []),
        *([startup_table(report.startup)] if report.startup else []),
    ]


def markdown(report: Report) -> str:
    parts = [
        "# Benchmarks on the CPU",
        report.machine.facts(),
        *(table.as_markdown() for table in all_tables(report)),
        *(["## Skipped", "\n".join(f"- {text}" for text in report.skipped)] if report.skipped else []),
        f"## CUDA: {report.cuda}",
    ]
    return "\n\n".join(parts) + "\n"
