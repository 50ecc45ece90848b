"""How fast one thing grows with another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression


def loglog_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The power of x that y grows with: the line through log y against log x, by least squares."""
    return linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope
