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


# Halves go to even numbers, for which sympy has no word.
@primitive("round", x=lambda g: torch.zeros_like(g), jvp=ELEMENTWISE, symbolic=None)
def round(x: Tensor, decimals: int = 0) -> Tensor:
    return torch.round(x, decimals=decimals)


# Where both are equal each gets one half.
maximum = elementwise(
    torch.maximum,
    a=lambda g, a, b: g * ((a > b) + 0.5 * (a == b)).to(g.dtype),
    b=lambda g, a, b: g * ((b > a) + 0.5 * (a == b)).to(g.dtype),
    symbolic="Max",
)
minimum = elementwise(
    torch.minimum,
    a=lambda g, a, b: g * ((a < b) + 0.5 * (a == b)).to(g.dtype),
    b=lambda g, a, b: g * ((b < a) + 0.5 * (a == b)).to(g.dtype),
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
    a=lambda g, a, b: g * ((a > b) + 0.5 * (a == b) + 1.0 * torch.isnan(raw(b))).to(g.dtype),
    b=lambda g, a, b: g * ((b > a) + 0.5 * (a == b) + 1.0 * _only_first_nan(a, b)).to(g.dtype),
)
fmin = elementwise(
    torch.fmin,
    a=lambda g, a, b: g * ((a < b) + 0.5 * (a == b) + 1.0 * torch.isnan(raw(b))).to(g.dtype),
    b=lambda g, a, b: g * ((b < a) + 0.5 * (a == b) + 1.0 * _only_first_nan(a, b)).to(g.dtype),
)


def _only_first_nan(a: Value, b: Value) -> Tensor:
    return torch.isnan(raw(a)) & ~torch.isnan(raw(b))


# Between numbers: at a bound the derivative is 0, as torch has it since 2.13.
@primitive(
    x=lambda g, x, min, max: torch.where((x > min) & (x < max), g, 0.0),
    jvp=ELEMENTWISE,
    symbolic="""Piecewise(
        *([] if max > 1e308 else [(max, (x >= max) | (min > max))]),
        *([] if min < -1e308 else [(min, x <= min)]), (x, True))""",
)
def clamp_between(x: Tensor, min: float, max: float) -> Tensor:
    return torch.clamp(x, None if min == -math.inf else min, None if max == math.inf else max)


def _inside(g: Value, x: Value, min: Value, max: Value) -> Value:
    """Between tensors x shares with a bound that it is equal to, unless both are."""
    share = 0.5 * ((x == min).to(raw(g).dtype) + (x == max).to(raw(g).dtype))
    return g * torch.where((x >= min) & (x <= max), torch.where(min == max, 1.0, 1.0 - share), 0.0).to(
        raw(g).dtype
    )


@primitive(
    x=_inside,
    min=lambda g, x, min, max: (
        g * (((x < min) + 0.5 * (x == min) * (min < max)) * (min <= max)).to(raw(g).dtype)
    ),
    max=lambda g, x, min, max: (
        g * torch.where(min > max, 1.0, (x > max) + 0.5 * (x == max) * (min < max)).to(raw(g).dtype)
    ),
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
