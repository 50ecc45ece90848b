"""The arithmetic by which recipes compare what they have measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, linear_regression, stdev


def mean_curve(curves: Iterable[Sequence[float]]) -> list[float]:
    """Mean over the seeds, point by point."""
    return [fmean(values) for values in zip(*curves, strict=True)]


def lead(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """How far our mean is above theirs, and the standard error of that difference (Welch)."""
    error = math.sqrt(stdev(ours) ** 2 / len(ours) + stdev(theirs) ** 2 / len(theirs))
    return fmean(ours) - fmean(theirs), error


def paired_lead(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The same where each of ours was measured under the same conditions as the one of theirs beside it."""
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def loglog_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The power of x that y grows with: the line through log y against log x, by least squares."""
    return linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope
