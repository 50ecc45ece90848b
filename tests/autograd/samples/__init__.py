"""For every entry of the table a function that uses it and inputs to try it on, drawn by hypothesis."""

from . import (  # noqa: F401 (each enters its samples)
    composites,
    convolution,
    elementwise,
    internals,
    losses,
    products,
    reductions,
    resampling,
    shapes,
)
from .drawing import FIRST_ORDER, SAMPLES, SINGLE_PRECISION, Case, Draw, Turn

__all__ = ["FIRST_ORDER", "SAMPLES", "SINGLE_PRECISION", "Case", "Draw", "Turn"]
