"""Functions that treat each element alike: a value, and its derivative times the gradient g, on one line."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, is_tensor
from .numbers import with_tensors
from .table import ELEMENTWISE, elementwise, primitive

aten = torch.ops.aten

# -- arithmetic ----------------------------------------------------------------------------------------------

add = elementwise(
    operator.add,
    "__add__",
    a=lambda g: g,
    b=lambda g: g,
    symbolic="a + b",
    prepare=with_tensors,
)
sub = elementwise(
    operator.sub,
    "__sub__",
    a=lambda g: g,
    b=lambda g: -g,
    symbolic="a - b",
    prepare=with_tensors,
)
mul = elementwise(
    operator.mul,
    "__mul__",
    "multiply",
    a=lambda g, b: g * b,
    b=lambda g, a: g * a,
    symbolic="a * b",
    prepare=with_tensors,
)
div = elementwise(
    torch.div,
    "__truediv__",
    a=lambda g, b: g / b,
    b=lambda g, b, ans: -g * ans / b,
    symbolic="a / b",
    prepare=with_tensors,
)
neg = elementwise(torch.neg, "negative", "__neg__", x=lambda g: -g, symbolic="-x")
reciprocal = elementwise(torch.reciprocal, x=lambda g, ans: -g * ans * ans, symbolic="1 / x")
square = elementwise(torch.square, x=lambda g, x: 2 * g * x, symbolic="x**2")
remainder = elementwise(
    torch.remainder, "__mod__", a=lambda g: g, b=lambda g, a, b: -g * torch.floor(torch.div(a, b)),
    symbolic="a - b * constant(floor(a / b))",
)  # fmt: skip


def _power_in_base(g: Value, a: Value, b: Value) -> Value:
    """b aᵇ⁻¹, and 0 where b is 0: there aᵇ is the constant 1, even at a = 0."""
    if not is_tensor(b):
        return torch.zeros_like(g) if b == 0 else g * (b * a) if b == 2 else g * (b * a ** (b - 1))
    return torch.where(b == 0, 0.0, g * (b * a ** (b - 1)))


def _power_in_exponent(g: Value, a: Value, b: Value, ans: Value) -> Value:
    """aᵇ ln a, and 0 where a is 0: there 0ᵇ is the constant 0."""
    if not is_tensor(a):
        return g * (ans * math.log(a)) if a > 0 else torch.where(b >= 0, g * 0.0, math.nan)
    return torch.where((a == 0) & (b >= 0), 0.0, g * (ans * torch.log(a)))


pow = elementwise(torch.pow, "__pow__", a=_power_in_base, b=_power_in_exponent, symbolic="a**b")

# -- exponentials and roots ----------------------------------------------------------------------------------

exp = elementwise(torch.exp, x=lambda g, ans: g * ans, symbolic="exp")
exp2 = elementwise(torch.exp2, x=lambda g, ans: g * ans * math.log(2), symbolic="2**x")
expm1 = elementwise(torch.expm1, x=lambda g, ans: g * (ans + 1), symbolic="exp(x) - 1")
log = elementwise(torch.log, x=lambda g, x: g / x, symbolic="log")
log1p = elementwise(torch.log1p, x=lambda g, x: g / (1 + x), symbolic="log(1 + x)")
log2 = elementwise(torch.log2, x=lambda g, x: g / (x * math.log(2)), symbolic="log(x)/log(2)")
log10 = elementwise(torch.log10, x=lambda g, x: g / (x * math.log(10)), symbolic="log(x)/log(10)")
logaddexp = elementwise(
    torch.logaddexp, a=lambda g, a, ans: g * torch.exp(a - ans), b=lambda g, b, ans: g * torch.exp(b - ans),
    symbolic="log(exp(a) + exp(b))",
)  # fmt: skip
sqrt = elementwise(torch.sqrt, x=lambda g, ans: g / (2 * ans), symbolic="sqrt")
rsqrt = elementwise(torch.rsqrt, x=lambda g, ans: -0.5 * g * ans * ans * ans, symbolic="1 / sqrt(x)")

# -- trigonometry --------------------------------------------------------------------------------------------

sin = elementwise(torch.sin, x=lambda g, x: g * torch.cos(x), symbolic="sin")
cos = elementwise(torch.cos, x=lambda g, x: -g * torch.sin(x), symbolic="cos")
tan = elementwise(torch.tan, x=lambda g, ans: g * (1 + ans * ans), symbolic="tan")
asin = elementwise(torch.asin, "arcsin", x=lambda g, x: g * torch.rsqrt(1 - x * x), symbolic="asin")
acos = elementwise(torch.acos, "arccos", x=lambda g, x: -g * torch.rsqrt(1 - x * x), symbolic="acos")
atan = elementwise(torch.atan, "arctan", x=lambda g, x: g / (1 + x * x), symbolic="atan")
atan2 = elementwise(
    torch.atan2,
    "arctan2",
    a=lambda g, a, b: g * b / (a * a + b * b),
    b=lambda g, a, b: -g * a / (a * a + b * b),
    symbolic="atan2",
)
sinh = elementwise(torch.sinh, x=lambda g, x: g * torch.cosh(x), symbolic="sinh")
cosh = elementwise(torch.cosh, x=lambda g, x: g * torch.sinh(x), symbolic="cosh")
tanh = elementwise(
    torch.tanh,
    x=lambda g, ans: g * (1 - ans * ans),
    fast=lambda g, ans: aten.tanh_backward(g, ans),
    symbolic="tanh",
)
asinh = elementwise(torch.asinh, x=lambda g, x: g * torch.rsqrt(x * x + 1), symbolic="asinh")
acosh = elementwise(torch.acosh, x=lambda g, x: g * torch.rsqrt(x * x - 1), symbolic="acosh")
atanh = elementwise(torch.atanh, x=lambda g, x: g / (1 - x * x), symbolic="atanh")
erf = elementwise(torch.erf, x=lambda g, x: g * torch.exp(-x * x) * (2 / math.sqrt(math.pi)), symbolic="erf")

# -- steps and choices ---------------------------------------------------------------------------------------

abs = elementwise(torch.abs, "absolute", "__abs__", x=lambda g, x: g * torch.sign(x), symbolic="Abs")
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


def _inside(x: Value, min: Value, max: Value) -> Value:
    return (x >= (-math.inf if min is None else min)) & (x <= (math.inf if max is None else max))


@primitive(
    "clamp", "clip",
    x=lambda g, x, min, max: torch.where(_inside(x, min, max), g, 0.0),
    min=lambda g, x, min, max: torch.where((x < min) & (min < (math.inf if max is None else max)), g, 0.0),
    max=lambda g, x, min, max: torch.where((x > max) | ((-math.inf if min is None else min) > max), g, 0.0),
    jvp=ELEMENTWISE,
    symbolic="""Piecewise(
        *([] if max is None else [(max, (x >= max) | (False if min is None else min > max))]),
        *([] if min is None else [(min, x <= min)]), (x, True))""",
)  # fmt: skip
def clamp(x: Tensor, min: Value = None, max: Value = None) -> Tensor:
    return torch.clamp(x, min, max)


# -- the same under other names, and what is made of the above -----------------------------------------------


@means("add", "__radd__")
def _add(a: Value, b: Value, *, alpha: float = 1) -> Value:
    return add(a, b if alpha == 1 else b * alpha)


@means("sub", "subtract")
def _sub(a: Value, b: Value, *, alpha: float = 1) -> Value:
    return sub(a, b if alpha == 1 else b * alpha)


@means("rsub", "__rsub__")
def _rsub(a: Value, b: Value, *, alpha: float = 1) -> Value:
    return _sub(b, a, alpha=alpha)


@means("div", "divide", "true_divide", "__div__")
def _div(a: Value, b: Value, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode not in (None, "floor", "trunc"):
        raise RuntimeError(f"rounding_mode must be None, 'trunc' or 'floor', not {rounding_mode!r}")
    return div(a, b) if rounding_mode is None else (floor if rounding_mode == "floor" else trunc)(div(a, b))


@means("__rtruediv__", "__rdiv__")
def _rdiv(a: Value, b: Value) -> Value:
    return div(b, a)


@means("floor_divide", "__floordiv__")
def _floor_divide(a: Value, b: Value) -> Value:
    return floor(div(a, b))


@means("__rfloordiv__")
def _rfloor_divide(a: Value, b: Value) -> Value:
    return floor(div(b, a))


@means("__rpow__")
def _rpow(a: Value, b: Value) -> Value:
    return pow(b, a)


@means("where")
def _where(condition: Tensor, *branches: Value, **named: Value) -> Value:
    """As a choice between two; with the condition alone it gives indices."""
    given = list(branches) + [named[name] for name in ("input", "other") if name in named]
    return where(condition, *given)


@means(Tensor.where)
def _where_method(x: Value, condition: Tensor, other: Value) -> Value:
    return where(condition, x, other)


@means("clamp_min")
def _clamp_min(x: Value, min: Value) -> Value:
    return clamp(x, min=min)


@means("clamp_max")
def _clamp_max(x: Value, max: Value) -> Value:
    return clamp(x, max=max)


@means("lerp")
def _lerp(input: Value, end: Value, weight: Value) -> Value:
    return input + weight * (end - input)


@means("addcmul")
def _addcmul(input: Value, a: Value, b: Value, *, value: float = 1) -> Value:
    return input + value * a * b


@means("addcdiv")
def _addcdiv(input: Value, a: Value, b: Value, *, value: float = 1) -> Value:
    return input + value * a / b
