"""Steps, bounds and choices between two values: the derivative is that of the branch taken.

At the step itself it is what torch has chosen: 0, a half for each of two that are equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, is_tensor, raw
from .table import ELEMENTWISE, elementwise, primitive

abs = elementwise(torch.abs, "absolute", "__abs__", x=lambda g, x: g * torch.sign(x), symbolic="Abs")
angle = elementwise(torch.angle, x=lambda g: torch.zeros_like(g), symbolic="constant(pi * (1 - sign(x)) / 2)")
sign = elementwise(torch.sign, x=lambda g: torch.zeros_like(g), symbolic="constant(sign(x))")
floor = elementwise(torch.floor, x=lambda g: torch.zeros_like(g), symbolic="constant(floor(x))")
ceil = elementwise(torch.ceil, x=lambda g: torch.zeros_like(g), symbolic="constant(ceiling(x))")
trunc = elementwise(
    torch.trunc, "fix", x=lambda g: torch.zeros_like(g), symbolic="constant(sign(x) * floor(Abs(x)))"
)


copysign = elementwise(
    torch.copysign,
    a=lambda g, a, ans: g * torch.where(a == 0, 0.0, ans / a),
    b=lambda g: torch.zeros_like(g),
)

nextafter = elementwise(
    torch.nextafter, a=lambda g, a, b: torch.where(a == b, 0.0, g), b=lambda g: torch.zeros_like(g)
)


# Zero also where the quotient is infinite.
@primitive(
    a=lambda g: torch.zeros_like(g),
    b=lambda g: torch.zeros_like(g),
    jvp=ELEMENTWISE,
    symbolic="constant(floor(a / b) if mode == 'floor' else sign(a / b) * floor(Abs(a / b)))",
)
def div_rounded(a: Tensor | float, b: Tensor | float, mode: str) -> Tensor:
    return torch.div(torch.as_tensor(a), b, rounding_mode=mode)


# Halves go to even numbers, for which sympy has no word.
@primitive("round", x=lambda g: torch.zeros_like(g), jvp=ELEMENTWISE, symbolic=None)
def round(x: Tensor, decimals: int = 0) -> Tensor:
    return torch.round(x, decimals=decimals)


def _share(g: Value, less: Tensor, equal: Tensor) -> Value:
    """Nothing of the gradient for what is less, half of it for one of two that are equal, else all of it.

    Asked in this order: each comparison with NaN is false, so NaN gets all of it, as in torch.
    """
    return torch.where(less, 0.0, torch.where(equal, 0.5 * g, g))


maximum = elementwise(
    torch.maximum,
    a=lambda g, a, b: _share(g, a < b, a == b),
    b=lambda g, a, b: _share(g, b < a, a == b),
    symbolic="Max",
)
minimum = elementwise(
    torch.minimum,
    a=lambda g, a, b: _share(g, a > b, a == b),
    b=lambda g, a, b: _share(g, b > a, a == b),
    symbolic="Min",
)


@primitive(a=lambda g, condition: torch.where(condition, g, 0.0),
           b=lambda g, condition: torch.where(condition, 0.0, g), jvp=ELEMENTWISE,
           symbolic="Piecewise((a, condition), (b, True))")  # fmt: skip
def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    return torch.where(condition, a, b)


# Of NaN and a number the number counts.
fmax = elementwise(
    torch.fmax,
    a=lambda g, a, b: _share(g, a < b, a == b),
    b=lambda g, a, b: _share(g, b < a, a == b),
)
fmin = elementwise(
    torch.fmin,
    a=lambda g, a, b: _share(g, a > b, a == b),
    b=lambda g, a, b: _share(g, b > a, a == b),
)


def _between(g: Value, x: Value, min: float, max: float) -> Value:
    """At a bound the derivative is 0, as torch has it since 2.13; infinity is no bound."""
    above = x > min if min > -math.inf else raw(x) == raw(x)
    return torch.where(above & (x < max) if max < math.inf else above, g, 0.0)


@primitive(
    x=_between,
    jvp=ELEMENTWISE,
    symbolic="""Piecewise(
        *([] if max > 1e308 else [(max, (x >= max) | (min > max))]),
        *([] if min < -1e308 else [(min, x <= min)]), (x, True))""",
)
def clamp_between(x: Tensor, min: float, max: float) -> Tensor:
    return torch.clamp(x, None if min == -math.inf else min, None if max == math.inf else max)


def _inside(g: Value, x: Value, min: Value, max: Value) -> Value:
    """Between tensors x shares with a bound that it is equal to, unless both are."""
    return _share(g, (x < min) | (x > max), ((x == min) | (x == max)) & (min < max))


def _at_bound(g: Value, beyond: Tensor, equal: Tensor, min: Value, max: Value) -> Value:
    return g * ((beyond + 0.5 * equal * (min < max)) * (min <= max)).to(g.dtype)


@primitive(
    x=_inside,
    min=lambda g, x, min, max: _at_bound(g, x < min, x == min, min, max),
    max=lambda g, x, min, max: torch.where(min > max, g, _at_bound(g, x > max, x == max, min, max)),
    jvp=ELEMENTWISE,
)
def clamp(x: Tensor, min: Tensor, max: Tensor) -> Tensor:
    return torch.clamp(x, min, max)


# -- the same as torch calls them ----------------------------------------------------------------------------


@means("where")
def _where(condition: Tensor, *branches: Value, **named: Value) -> Value:
    """As a choice between two; with the condition alone it gives indices."""
    given = list(branches) + [named[name] for name in ("input", "other") if name in named]
    return where(condition, *given)


@means(Tensor.where)
def _where_method(x: Value, condition: Tensor, other: Value) -> Value:
    return where(condition, x, other)


@means("clamp", "clip")
def _clamp(x: Value, min: Value = None, max: Value = None) -> Value:
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if not is_tensor(min) and not is_tensor(max):
        return clamp_between(x, -math.inf if min is None else min, math.inf if max is None else max)
    if max is None:
        return maximum(x, min)
    if min is None:
        return minimum(x, max)
    return clamp(x, min, max)


@means("clamp_min")
def _clamp_min(x: Value, min: Value) -> Value:
    return _clamp(x, min, None)


@means("clamp_max")
def _clamp_max(x: Value, max: Value) -> Value:
    return _clamp(x, None, max)
