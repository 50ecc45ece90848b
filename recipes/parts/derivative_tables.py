"""The tables of `recipes/derivatives.py`: the four ways at one point, their costs, how a formula swells."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recipes.common.table import table
from recipes.parts.counted_work import Cost, Shape, Way
from recipes.parts.expression_swell import Swell

COLUMNS: tuple[tuple[Shape, Way], ...] = (
    ("n inputs, 1 result", "reverse mode"),
    ("n inputs, 1 result", "forward mode"),
    ("n inputs, 1 result", "finite differences"),
    ("1 input, n results", "reverse mode"),
    ("1 input, n results", "forward mode"),
)


def tables(ways: dict[str, tuple[Tensor, Tensor]], measured: Sequence[Cost]) -> str:
    """The four ways at one point, then the costs."""
    exact = ways["by hand"]
    values = [
        [
            way,
            f"{float(dx):.15f}",
            f"{float(dy):.15f}",
            f"{distance((dx, dy), exact):.0e}".replace("0e+00", "0"),
        ]
        for way, (dx, dy) in ways.items()
    ]
    found = {(c.shape, c.way, c.n): c for c in measured}
    lines = []
    for n in sorted({c.n for c in measured}):
        cells = [found[key] for key in [(shape, way, n) for shape, way in COLUMNS]]
        lines.append(
            [f"{n}"]
            + [f"{c.evaluations:,.2f}" for c in cells]
            + [f"{c.seconds * 1e3:,.2f}" for c in cells[:2]]
        )
    titles = [f"{shape}, {way}".replace(", ", "\n").replace(" mode", "") for shape, way in COLUMNS]
    titles = [title.replace("finite differences", "differences") for title in titles]
    head = ["n", *(f"{title}\nevaluations" for title in titles), *(f"{title}\nms" for title in titles[:2])]
    return f"{table(['', 'dz/dx', 'dz/dy', 'error'], values)}\n\n{table(head, lines)}"


def swell_table(swollen: Sequence[Swell]) -> str:
    """The derivative of an iterated map: as a formula, and in reverse mode."""
    head = ["iterations of\n4 x (1 - x)", "operations in the\nderivative's formula", "in reverse\nmode"]
    return table(head, [[f"{one.iterations}", f"{one.formula:,}", f"{one.reverse}"] for one in swollen])


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """The larger one of the two errors."""
    return max(float((f - e).abs()) for f, e in zip(found, exact, strict=True))
