"""The table of primitives: each entry a value and its derivatives, in files by kind.

``PRIMITIVES`` has them by name. ``torchopt_course.autograd.dispatch.TABLE`` says which torch functions they
stand for, together with the functions that are written in terms of primitives.
"""

from . import (
    activations,
    attention,
    constants,
    conversion,
    convolution,
    elementwise,
    indexing,
    losses,
    normalization,
    pooling,
    products,
    recurrent,
    reductions,
    shapes,
)
from .table import ELEMENTWISE, LINEAR, MULTILINEAR, PRIMITIVES, Primitive, primitive

__all__ = [
    "ELEMENTWISE",
    "LINEAR",
    "MULTILINEAR",
    "PRIMITIVES",
    "Primitive",
    "activations",
    "attention",
    "constants",
    "conversion",
    "convolution",
    "elementwise",
    "indexing",
    "losses",
    "normalization",
    "pooling",
    "primitive",
    "products",
    "recurrent",
    "reductions",
    "shapes",
]
