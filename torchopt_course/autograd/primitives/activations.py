"""Activations: the nonlinear functions between layers, and dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decompose import stands_for
from ..dispatch import means
from ..inplace import also_in_place, before, write
from ..traced import Value, raw
from .steps import where
from .table import ELEMENTWISE, elementwise, primitive

aten = torch.ops.aten
threshold_backward = aten.threshold_backward.default


# -- activations ---------------------------------------------------------------------------------------------

sigmoid = elementwise(
    torch.sigmoid, "expit", x=lambda g, ans: g * ans * (1 - ans),
    fast=lambda g, ans: aten.sigmoid_backward(g, ans), symbolic="1 / (1 + exp(-x))",
)  # fmt: skip


@primitive(x=lambda g, ans: torch.where(ans <= 0, 0.0, g),
           fast=lambda g, ans: threshold_backward(g, ans, 0),
           jvp=ELEMENTWISE, symbolic="Piecewise((x, x > 0), (0, True))")  # fmt: skip
def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


@primitive(
    x=lambda g, x, negative_slope: torch.where(x > 0, g, g * negative_slope),
    fast=lambda g, x, negative_slope: aten.leaky_relu_backward(g, x, float(negative_slope), False),
    jvp=ELEMENTWISE,
    symbolic="Piecewise((x, x > 0), (negative_slope * x, True))",
)
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return F.leaky_relu(x, negative_slope)


@primitive(
    x=lambda g, x, alpha, scale, rate: (
        g * torch.where(x <= 0, scale * alpha * rate * torch.exp(torch.where(x < 0, rate * x, 0.0)), scale)
    ),
    fast=lambda g, x, alpha, scale, rate: aten.elu_backward(
        g, float(alpha), float(scale), float(rate), False, x
    ),
    jvp=ELEMENTWISE,
    symbolic="Piecewise((scale * x, x > 0), (scale * alpha * (exp(rate * x) - 1), True))",
)
def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, rate: float = 1.0) -> Tensor:
    """SELU has a scale, CELU a rate."""
    return torch._C._nn.elu(x, alpha, scale, rate)


def _gelu_slope(x: Value, approximate: str) -> Value:
    if approximate == "none":  # x Φ(x)
        density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density
    c = math.sqrt(2 / math.pi)  # x (1 + tanh u) / 2 with u = c (x + 0.044715 x³)
    t = torch.tanh(c * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)


@primitive("gelu", x=lambda g, x, approximate: g * _gelu_slope(x, approximate),
           fast=lambda g, x, approximate: aten.gelu_backward(g, x, approximate=approximate),
           jvp=ELEMENTWISE, symbolic="""x / 2 * (1 + (erf(x / sqrt(2)) if approximate == "none"
                                            else tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))))""")  # fmt: skip
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@primitive(x=lambda g, x: g * (torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))),
           fast=lambda g, x: aten.silu_backward(g, x), jvp=ELEMENTWISE,
           symbolic="x / (1 + exp(-x))")  # fmt: skip
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@primitive(
    "softplus",
    x=lambda g, x, beta, threshold: g * torch.where(x * beta > threshold, 1.0, torch.sigmoid(x * beta)),
    fast=lambda g, x, beta, threshold: aten.softplus_backward(g, x, float(beta), float(threshold)),
    jvp=ELEMENTWISE,
    symbolic="Piecewise((x, x * beta > threshold), (log(1 + exp(x * beta)) / beta, True))",
)
def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return F.softplus(x, beta, threshold)


@primitive(
    x=lambda g, x: torch.where(x <= -3, 0.0, torch.where(x >= 3, g, g * (x / 3 + 0.5))),
    fast=lambda g, x: aten.hardswish_backward(g, x),
    jvp=ELEMENTWISE,
    symbolic="Piecewise((0, x <= -3), (x * (x + 3) / 6, x < 3), (x, True))",
)
def hardswish(x: Tensor) -> Tensor:
    return F.hardswish(x)


@primitive("logsigmoid", "log_sigmoid", x=lambda g, x: g * torch.sigmoid(-x), jvp=ELEMENTWISE,
           symbolic="-log(1 + exp(-x))")  # fmt: skip
def logsigmoid(x: Tensor) -> Tensor:
    """ln σ(x)"""
    return F.logsigmoid(x)


def _hardsigmoid_slope(g: Tensor, x: Tensor) -> Tensor:
    return torch.where((x > -3) & (x < 3), g / 6, 0.0)


@primitive(
    x=_hardsigmoid_slope,
    # torch's kernel has 1/6 in single precision: right for halves, where it rounds once, and not for doubles.
    fast=lambda g, x: (aten.hardsigmoid_backward if x.dtype.itemsize == 2 else _hardsigmoid_slope)(g, x),
    jvp=ELEMENTWISE,
    symbolic="Piecewise((0, x <= -3), (1, x >= 3), (x / 6 + 1 / 2, True))",
)
def hardsigmoid(x: Tensor) -> Tensor:
    return F.hardsigmoid(x)


def _mish_slope(x: Value) -> Value:
    """Of x tanh(ln(1 + eˣ))."""
    t = torch.tanh(softplus(x))
    return t + x * torch.sigmoid(x) * (1 - t * t)


@primitive(
    x=lambda g, x: g * _mish_slope(x),
    fast=lambda g, x: aten.mish_backward(g, x),
    jvp=ELEMENTWISE,
    symbolic="x * tanh(log(1 + exp(x)))",
)
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


def _outside(g: Value, x: Value, lambd: float) -> Value:
    return torch.where((x < -lambd) | (x > lambd), g, 0.0)


@primitive("hardshrink", x=_outside, fast=lambda g, x, lambd: aten.hardshrink_backward(g, x, float(lambd)),
           jvp=ELEMENTWISE, symbolic="Piecewise((x, (x < -lambd) | (x > lambd)), (0, True))")  # fmt: skip
def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return F.hardshrink(x, lambd)


@primitive("softshrink", x=_outside, fast=lambda g, x, lambd: aten.softshrink_backward(g, x, float(lambd)),
           jvp=ELEMENTWISE,
           symbolic="Piecewise((x + lambd, x < -lambd), (x - lambd, x > lambd), (0, True))")  # fmt: skip
def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return F.softshrink(x, lambd)


# -- the same under other names, and what is made of the above -----------------------------------------------


@means("relu", checked=True)
def _relu(input: Value, inplace: bool = False) -> Value:
    return write(input, relu(before(input)), "relu_") if inplace else relu(input)


@means("relu6")
@also_in_place
def _relu6(input: Value) -> Value:
    return torch.clamp(input, 0, 6)


@means("hardtanh")
@also_in_place
def _hardtanh(input: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    return torch.clamp(input, min_val, max_val)


@means("leaky_relu")
@also_in_place
def _leaky_relu(input: Value, negative_slope: float = 0.01) -> Value:
    return leaky_relu(input, negative_slope)


@means("elu")
@also_in_place
def _elu(input: Value, alpha: float = 1.0) -> Value:
    return elu(input, alpha)


@means("selu")
@also_in_place
def _selu(input: Value) -> Value:
    return elu(input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@means("celu")
@also_in_place
def _celu(input: Value, alpha: float = 1.0) -> Value:
    return elu(input, alpha, rate=1 / alpha)


@means("silu")
@also_in_place
def _silu(input: Value) -> Value:
    return silu(input)


@means("hardsigmoid")
@also_in_place
def _hardsigmoid(input: Value) -> Value:
    return hardsigmoid(input)


@means("hardswish")
@also_in_place
def _hardswish(input: Value) -> Value:
    return hardswish(input)


@means("mish")
@also_in_place
def _mish(input: Value) -> Value:
    return mish(input)


def _glu_vjp(g: Value, x: Value, dim: int) -> Value:
    value, gate = torch.chunk(x, 2, dim)
    s = torch.sigmoid(gate)
    return torch.cat([s * g, (1 - s) * s * value * g], dim)


@primitive("glu", x=_glu_vjp, fast=lambda g, x, dim: aten.glu_backward(g, x, dim))
def glu(x: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second."""
    return F.glu(x, dim)


@means("prelu")
def _prelu(input: Value, weight: Value) -> Value:
    dims = len(input.shape)
    channels = (1, -1, *[1] * (dims - 2)) if dims > 1 else (-1,) * dims
    positive = input > 0
    # No product where it does not count: it might be 0 times infinity.
    return where(positive, input, weight.reshape(channels) * where(positive, 0.0, input))


@means("dropout")
def _dropout(
    input: Value, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool | None = None
) -> Value:
    """Zero each element with probability p, scale the others by 1 / (1 - p): a product with a random mask."""
    training = training if train is None else train
    if inplace:
        return _dropout_in_place(input, p, training)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    if raw(input).is_cuda and p < 1:
        return _native_dropout(input, p)[0]
    return input * _mask(input, p)


@means("dropout_")
def _dropout_in_place(input: Value, p: float, train: bool) -> Value:
    """On a GPU torch draws other numbers for it than for what gives a new tensor."""
    if not train or p == 0:
        return input
    old = before(input)
    return write(input, old * _mask(old, p), "dropout_")


def _mask(x: Value, p: float) -> Tensor:
    return torch.dropout_(torch.ones_like(raw(x)), p, True)


@stands_for("native_dropout")
@means("native_dropout")
def _native_dropout(input: Value, p: float, train: bool | None = True) -> tuple[Value, Tensor]:
    """The same, with the mask. On a GPU which numbers are drawn depends on how the tensor lies in memory."""
    mask = torch.native_dropout(raw(input), p, train)[1]
    scale = 1.0 if train is False else 0.0 if p == 1 else 1 / (1 - p)
    return input * (mask.to(input.dtype) * scale), mask


@means("feature_dropout")
def _feature_dropout(input: Value, p: float = 0.5, train: bool = True) -> Value:
    """The same for whole channels: ``dropout1d`` to ``dropout3d``."""
    return input * torch.feature_dropout(torch.ones_like(input.detach()), p, train)
