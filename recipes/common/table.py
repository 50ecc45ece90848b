"""Tables of text, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first flush left; a cell of the header may have several lines."""
    heights = [cell.count("\n") for cell in header]
    padded = ["\n" * (max(heights) - height) + cell for height, cell in zip(heights, header, strict=True)]
    head = list(zip(*(cell.split("\n") for cell in padded), strict=True))
    widths = [max(map(len, column)) for column in zip(*head, *rows, strict=True)]
    lines = [*head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()
        for first, *others in lines
    )
