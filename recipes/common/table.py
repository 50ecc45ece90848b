"""Tables of text, for a terminal and for a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side, the first flush left; a cell of the header may have several lines."""
    rows = list(rows)
    heights = [cell.count("\n") for cell in header]
    padded = ["\n" * (max(heights) - height) + cell for height, cell in zip(heights, header, strict=True)]
    head = list(zip(*(cell.split("\n") for cell in padded), strict=True))
    widths = [max(map(len, column)) for column in zip(*head, *rows, strict=True)]
    lines = [*head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()
        for first, *others in lines
    )


def table_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], missing: str = "-") -> str:
    """A table of what rows hold: below each heading its format, filled, as in `{"rate": "{lr:.2g}"}`.

    `missing` stands for None, infinity and NaN; a flag is shown as "!" where it is set.
    """

    def shown(value: Any) -> Any:
        if isinstance(value, bool):
            return "!" if value else " "
        return Missing(missing) if value is None or finite(value) is None else value

    filled = ({name: shown(value) for name, value in row.items()} for row in rows)
    return table([*columns], [[form.format_map(row) for form in columns.values()] for row in filled])


def finite(value: Any) -> Any:
    """The same, but None for numbers that JSON does not know: infinity and NaN."""
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Missing(str):
    """Words in the place of a number, however it was to be formatted."""

    def __format__(self, form: str) -> str:
        return str(self)
