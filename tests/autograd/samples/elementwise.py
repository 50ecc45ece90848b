"""Functions of each element, by the name that they have in torch, where they are defined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from .drawing import SAMPLES, Case, Draw, sample

DOMAINS = {
    "log": (0.2, 3), "log2": (0.2, 3), "log10": (0.2, 3), "log1p": (-0.8, 3), "sqrt": (0.2, 3),
    "rsqrt": (0.2, 3), "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atanh": (-0.9, 0.9), "acosh": (1.1, 3),
    "reciprocal": (0.3, 3), "tan": (-1.2, 1.2),
}  # fmt: skip
UNARY = [
    "neg",
    "reciprocal",
    "square",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "abs",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "round",
    "sigmoid",
    "relu",
    "silu",
    "logsigmoid",
    "clone",
]
BINARY = ["add", "sub", "mul", "maximum", "minimum", "logaddexp", "atan2"]


def _unary(name: str) -> Callable[[Draw], Case]:
    function = getattr(torch, name, None) or getattr(F, name)
    low, high = DOMAINS.get(name, (None, 1.0))
    return lambda draw: (function, (draw.tensor(*draw.shape(), low=low, high=high),))


def _binary(name: str) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        left, right = draw.pair()
        return getattr(torch, name), (draw.tensor(*left), draw.tensor(*right))

    return case


SAMPLES |= {name: _unary(name) for name in UNARY} | {name: _binary(name) for name in BINARY}


@sample
def div(draw: Draw) -> Case:
    left, right = draw.pair()
    return torch.div, (draw.tensor(*left), draw.tensor(*right, low=0.5, high=2))


@sample
def remainder(draw: Draw) -> Case:
    left, right = draw.pair()
    return torch.remainder, (draw.tensor(*left), draw.tensor(*right, low=0.5, high=2))


@sample
def pow(draw: Draw) -> Case:
    left, right = draw.pair()
    base, exponent = draw.tensor(*left, low=0.3, high=2), draw.tensor(*right)
    number = draw.pick([0, 1, 2, 3, -1, 0.5, -1.5])
    signed = draw.tensor(*left) if number in (0, 1, 2, 3) else base
    return draw.pick([
        (torch.pow, (base, exponent)), (lambda x: x**number, (signed,)), (lambda x: 1.7**x, (exponent,)),
    ])  # fmt: skip


@sample
def where(draw: Draw) -> Case:
    left, right = draw.pair()
    mask = draw.mask(*left)
    return draw.pick([
        (lambda a, b: torch.where(mask, a, b), (draw.tensor(*left), draw.tensor(*right))),
        (lambda a: a.masked_fill(mask, -1.5), (draw.tensor(*left),)),
        (lambda b: torch.where(mask, 2.0, b), (draw.tensor(*right),)),
    ])  # fmt: skip


@sample
def clamp(draw: Draw) -> Case:
    left, right = draw.pair()
    low, high = draw.pick([(-0.5, 0.5), (None, 0.3), (0.1, None)])
    return draw.pick([
        (lambda x: torch.clamp(x, low, high), (draw.tensor(*left),)),
        (lambda x, low, high: torch.clamp(x, low, high),
         (draw.tensor(*left), draw.tensor(*right), draw.tensor(*right))),
    ])  # fmt: skip


@sample
def leaky_relu(draw: Draw) -> Case:
    slope = draw.pick([0.01, 0.3])
    return lambda x: F.leaky_relu(x, slope), (draw.tensor(*draw.shape()),)


@sample
def elu(draw: Draw) -> Case:
    alpha = draw.pick([1.0, 0.7])
    functions = [lambda x: F.elu(x, alpha), F.selu, lambda x: F.celu(x, alpha if alpha == 1 else 0.5)]
    return draw.pick(functions), (draw.tensor(*draw.shape()),)


@sample
def gelu(draw: Draw) -> Case:
    approximate = draw.pick(["none", "tanh"])
    return lambda x: F.gelu(x, approximate=approximate), (draw.tensor(*draw.shape()),)


@sample
def softplus(draw: Draw) -> Case:
    beta, threshold = draw.pick([(1, 20), (2.5, 1.5)])
    return lambda x: F.softplus(x, beta, threshold), (draw.tensor(*draw.shape()),)
