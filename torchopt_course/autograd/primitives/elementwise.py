"""Functions that treat each element alike: a value, and its derivative times the gradient g, on one line."""

from __future__ import annotations

import functools
import math
import operator

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, is_tensor, raw
from .numbers import with_tensors
from .steps import div_rounded
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
    b=lambda g, a, b: -g * (a / b) / b,
    symbolic="a / b",
    prepare=with_tensors,
)
neg = elementwise(torch.neg, "negative", "__neg__", x=lambda g: -g, symbolic="-x")
reciprocal = elementwise(torch.reciprocal, x=lambda g, ans: -g * ans * ans, symbolic="1 / x")
square = elementwise(torch.square, x=lambda g, x: 2 * g * x, symbolic="x**2")


def _whole_quotient(a: Value, b: Value, rounding: str) -> torch.Tensor:
    """How often b goes into a: a constant but for its jumps."""
    return torch.div(torch.as_tensor(raw(a)), raw(b), rounding_mode=rounding)


remainder = elementwise(
    torch.remainder, "__mod__", a=lambda g: g, b=lambda g, a, b: -g * _whole_quotient(a, b, "floor"),
    symbolic="a - b * constant(floor(a / b))",
)  # fmt: skip
fmod = elementwise(
    torch.fmod, a=lambda g: g, b=lambda g, a, b: -g * _whole_quotient(a, b, "trunc"),
    symbolic="a - b * constant(sign(a / b) * floor(Abs(a / b)))",
)  # fmt: skip


def _power_in_base(g: Value, a: Value, b: Value) -> Value:
    """b aᵇ⁻¹, and 0 where b is 0: there aᵇ is the constant 1, even at a = 0."""
    if not is_tensor(b):
        return torch.zeros_like(g) if b == 0 else g * (b * a) if b == 2 else g * (b * a ** (b - 1))
    return torch.where(b == 0, 0.0, g * (b * a ** (b - 1)))


def _power_in_exponent(g: Value, a: Value, b: Value, ans: Value) -> Value:
    """aᵇ ln a, and 0 where a is 0: there 0ᵇ is the constant 0."""
    if not is_tensor(a):
        slope = ans * (math.log(a) if a > 0 else math.nan if a else -math.inf)
        return torch.where(b >= 0, 0.0, g * slope) if a == 0 else g * slope
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
# The shares of two exponentials in their sum: by the difference, since the result is rounded.
logaddexp = elementwise(
    torch.logaddexp,
    a=lambda g, a, b: g * torch.sigmoid(a - b),
    b=lambda g, a, b: g * torch.sigmoid(b - a),
    symbolic="log(exp(a) + exp(b))",
)
logaddexp2 = elementwise(
    torch.logaddexp2,
    a=lambda g, a, b: g * torch.sigmoid((a - b) * math.log(2)),
    b=lambda g, a, b: g * torch.sigmoid((b - a) * math.log(2)),
    symbolic="log(2**a + 2**b)/log(2)",
)


xlogy = elementwise(
    torch.xlogy,
    "xlogy",
    a=lambda g, a, b: torch.where((raw(a) == 0) & (raw(b) <= 0), 0.0, torch.xlogy(g, b)),
    b=lambda g, a, b: g * a / b,
    symbolic="a * log(b)",
)
xlog1py = elementwise(
    torch.special.xlog1py,
    "xlog1py",
    a=lambda g, a, b: torch.where((raw(a) == 0) & (raw(b) <= -1), 0.0, torch.special.xlog1py(g, b)),
    b=lambda g, a, b: g * a / (b + 1),
    symbolic="a * log(1 + b)",
)
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
    a=lambda g, a, b: g * _over_square(b, a, b),
    b=lambda g, a, b: -g * _over_square(a, a, b),
    symbolic="atan2",
)


def _over_square(x: Value, a: Value, b: Value) -> Value:
    """x / (a² + b²), and 0 at the origin, as torch has it."""
    square = a * a + b * b
    return torch.where(square == 0, 0.0, x / torch.where(square == 0, 1.0, square))


hypot = elementwise(
    torch.hypot, a=lambda g, a, ans: g * (a / ans), b=lambda g, b, ans: g * (b / ans),
    symbolic="sqrt(a**2 + b**2)",
)  # fmt: skip
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

lerp = elementwise(
    torch.lerp,
    input=lambda g, weight: g * (1 - weight),
    end=lambda g, weight: g * weight,
    weight=lambda g, input, end: g * (end - input),
    symbolic="input + weight * (end - input)",
)

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
    return div(a, b) if rounding_mode is None else div_rounded(a, b, rounding_mode)


@means("__rtruediv__", "__rdiv__")
def _rdiv(a: Value, b: Value) -> Value:
    return div(b, a)


@means("floor_divide", "__floordiv__")
def _floor_divide(a: Value, b: Value) -> Value:
    return div_rounded(a, b, "floor")


@means("__rfloordiv__")
def _rfloor_divide(a: Value, b: Value) -> Value:
    return div_rounded(b, a, "floor")


@means("__rpow__")
def _rpow(a: Value, b: Value) -> Value:
    return pow(b, a)


@means("addcmul")
def _addcmul(input: Value, a: Value, b: Value, *, value: float = 1) -> Value:
    input, a, b = _promoted(input, a, b)
    return input + value * a * b


@primitive(
    input=lambda g: g,
    a=lambda g, b, value: g * (value / b),
    b=lambda g, a, b, value: -g * (value * a / (b * b)),
    jvp=ELEMENTWISE,
    symbolic="input + value * a / b",
)
def addcdiv(input: Tensor, a: Tensor, b: Tensor, value: float) -> Tensor:
    return torch.addcdiv(input, a, b, value=value)


@means("addcdiv")
def _addcdiv(input: Value, a: Value, b: Value, *, value: float = 1) -> Value:
    return addcdiv(*_promoted(input, a, b), value)


def _promoted(*values: Value) -> list[Value]:
    """In one dtype before anything is computed, or the product would be rounded to its factors'."""
    if len({x.dtype for x in values}) == 1:
        return list(values)
    # For torch tensors with dimensions decide, but between integers and a number with a fraction.
    looks: list[Tensor] = []
    for same in ([x.dtype for x in values if x.shape], [x.dtype for x in values if not x.shape]):
        if same:
            looks.append(torch.empty((0,) * (not looks), dtype=functools.reduce(torch.promote_types, same)))
    common = torch.result_type(looks[0], looks[-1])
    return [x.to(common) for x in values]
