"""A table for the terminal and as markdown, and how its numbers are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What is aligned on the right: 1,230 or 1.23 or 12% or 1.23 (≥ 1.1).
NUMBER = re.compile(r"[\d.,]+( ?%)?( \([≥<] [\d.]+\))?")


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

    def with_note(self, more: str) -> Table:
        return Table(self.title, self.headings, self.rows, f"{self.note}\n{more}")

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
