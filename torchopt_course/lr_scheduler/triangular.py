"""The formulas of cyclical learning rates: a triangular wave, and what anneals it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

Mode: TypeAlias = Literal["triangular", "triangular2", "exp_range"]
ScaleMode: TypeAlias = Literal["cycle", "iterations"]
# What each mode's scale is a function of: the number of the cycle or that of the iteration.
SCALED_BY: dict[str, ScaleMode] = {
    "triangular": "cycle",
    "triangular2": "cycle",
    "exp_range": "iterations",
}


def triangular_wave(iteration: float, total_size: float, step_ratio: float) -> tuple[int, float]:
    """The number of the cycle, from 1, and the height in it: 0 at its two ends and 1 at its peak.

    Args:
        iteration: batches seen so far.
        total_size: iterations in a cycle.
        step_ratio: the share of them that goes up.
    """
    cycle = int(iteration // total_size) + 1
    x = iteration % total_size / total_size
    height = x / step_ratio if x <= step_ratio else (1 - x) / (1 - step_ratio)
    return cycle, height


def exp_range_scale(gamma: float, iteration: float) -> float:
    """A little less each iteration: γ^t."""
    return float(gamma**iteration)


def triangular_scale(cycle: float) -> float:
    """The same amplitude in every cycle: 1."""
    return 1.0


def triangular2_scale(cycle: float) -> float:
    """Half the amplitude in each cycle: 1 / 2^(cycle - 1)."""
    return float(0.5 ** (cycle - 1))


SCALES: dict[str, Callable[[float], float]] = {
    "triangular": triangular_scale,
    "triangular2": triangular2_scale,
}


def saved_attributes(scale_fn: Callable[[float], float] | None) -> dict[str, Any] | None:
    """What a checkpoint holds of a user's own scale: the attributes of an object, of a function nothing."""
    if scale_fn is None:
        return None
    is_function = hasattr(scale_fn, "__name__") or isinstance(scale_fn, partial)
    if hasattr(scale_fn, "__dict__") and not is_function:
        return dict(vars(scale_fn))
    warnings.warn(
        f"scale_fn={getattr(scale_fn, '__name__', scale_fn)!r} is a function and is not saved in the "
        "state of CyclicLR: give the same to the constructor when you resume",
        UserWarning,
        stacklevel=3,
    )
    return None
