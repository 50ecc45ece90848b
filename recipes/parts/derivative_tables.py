"""The tables of `recipes/derivatives.py`: the four ways at one point, their costs, how a formula swells."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recipes.common.table import table, table_of
from recipes.parts.counted_work import Cost, Shape, Way

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
    points = [
        {"way": way, "dx": float(found[0]), "dy": float(found[1]), "error": distance(found, exact) or None}
        for way, found in ways.items()
    ]
    columns = {"": "{way}", "dz/dx": "{dx:.15f}", "dz/dy": "{dy:.15f}", "error": "{error:.0e}"}
    found = {(c.shape, c.way, c.n): c for c in measured}
    lines = []
    for n in sorted({c.n for c in measured}):
        cells = [found[key] for key in [(shape, way, n) for shape, way in COLUMNS]]
        evaluations = [f"{c.evaluations:,.2f}" for c in cells]
        lines.append([f"{n}", *evaluations, *(f"{c.seconds * 1e3:,.2f}" for c in cells[:2])])
    titles = [f"{shape}, {way}".replace(", ", "\n").replace(" mode", "") for shape, way in COLUMNS]
    titles = [title.replace("finite differences", "differences") for title in titles]
    head = ["n", *(f"{title}\nevaluations" for title in titles), *(f"{title}\nms" for title in titles[:2])]
    return f"{table_of(points, columns, missing='0')}\n\n{table(head, lines)}"


SWELL = {
    "iterations of\n4 x (1 - x)": "{iterations}",
    "operations in the\nderivative's formula": "{formula:,}",
    "in reverse\nmode": "{reverse}",
}


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """The larger one of the two errors."""
    return max(float((f - e).abs()) for f, e in zip(found, exact, strict=True))
