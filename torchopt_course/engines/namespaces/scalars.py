"""What ``xp`` means in a kernel for the CPU: numpy's functions, of one number at a time.

Where numpy lacks a function of torch, or numba would make an array of each number for it, it stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as xp

from ..rules import Rule, bind

Number = Any


def where(condition: Number, x: Number, y: Number) -> Number:
    return x if condition else y


def clamp(x: Number, min: Number, max: Number) -> Number:
    return xp.minimum(xp.maximum(x, min), max)


def rsqrt(x: Number) -> Number:
    return 1 / xp.sqrt(x)


def sigmoid(x: Number) -> Number:
    return 1 / (1 + xp.exp(-x))


FUNCTIONS: dict[str, Any] = {  # by the names that torch has for them
    "where": where, "clamp": clamp, "clip": clamp, "rsqrt": rsqrt, "sigmoid": sigmoid,
}  # fmt: skip


class Scalars(ModuleType):
    """A module, for numba looks up names in nothing else.

    Args:
        wrap: the compiler's decorator.
        real: gives the numbers in the functions the precision of the arrays.
    """

    def __init__(self, wrap: Callable[[Rule], Rule], real: Callable[[float], Any] | None) -> None:
        super().__init__("xp")
        for name, function in FUNCTIONS.items():
            setattr(self, name, bind(function, xp, wrap, real))

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)
