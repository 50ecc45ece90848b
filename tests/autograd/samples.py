# ruff: noqa: E501
"""For every entry of the table a function that uses it and inputs to try it on, drawn by hypothesis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchopt_course.autograd import PRIMITIVES

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


class Draw:
    """What a sample may ask for; all tensors of one case have one dtype."""

    def __init__(self, data: st.DataObject, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype
        self.generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000), label="seed"))

    def pick(self, options: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(list(options)))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        return tuple(self.data.draw(st.lists(st.integers(1, 4), min_size=low, max_size=high)))

    def pair(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two shapes that broadcast against each other."""
        full = self.shape(0, 3)
        kept = [self.data.draw(st.booleans()) for _ in full]
        other = tuple(n if keep else 1 for n, keep in zip(full, kept, strict=True))
        other = other[self.pick(range(len(other) + 1)) :]
        return (full, other) if self.pick([True, False]) else (other, full)

    def tensor(self, *shape: int, low: float | None = None, high: float = 1.0) -> Tensor:
        """Normal numbers, or uniform ones; contiguous in memory or not."""
        layout = self.pick(["contiguous", "transposed", "strided"])
        made = (
            tuple(reversed(shape))
            if layout == "transposed"
            else (*shape, 2)
            if layout == "strided"
            else shape
        )
        values = torch.empty(made, dtype=torch.float64)
        if low is None:
            values.normal_(generator=self.generator)
        else:
            values.uniform_(low, high, generator=self.generator)
        values = values.to(self.dtype)
        if layout == "transposed":
            return values.permute(*reversed(range(len(made)))) if made else values
        return values[..., 0] if layout == "strided" else values

    def labels(self, count: int, *shape: int) -> Tensor:
        return torch.randint(0, count, shape, generator=self.generator)

    def mask(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < 0.5

    def dim(self, shape: Sequence[int]) -> int:
        return self.pick(range(-len(shape), len(shape)))

    def dims(self, shape: Sequence[int]) -> Any:
        """None, one or several dimensions."""
        several = tuple(d for d in range(len(shape)) if self.pick([True, False]))
        return self.pick([None, *([self.dim(shape)] if shape else []), *([several] if several else [])])


class Turn(Draw):
    """Takes the cases of a sample in turn, where it would pick one by chance."""

    def __init__(self, data: st.DataObject, dtype: torch.dtype, turn: int) -> None:
        super().__init__(data, dtype)
        self.turn, self.cases = turn, 1

    def pick(self, options: Sequence[Any]) -> Any:
        first = options[0]
        if not (callable(first) or (isinstance(first, tuple) and first and callable(first[0]))):
            return super().pick(options)
        self.cases = max(self.cases, len(options))
        return options[self.turn % len(options)]


FIRST_ORDER = ("composite_hard",)  # torch itself has no second
# Where float64 cannot agree to 1e-10: a conversion to float32 on the way; torch's 1/6 is a float32 number.
SINGLE_PRECISION = ("convert", "composite_hard")
SAMPLES: dict[str, Callable[[Draw], Case]] = {}


def sample(function: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
    SAMPLES[function.__name__.removesuffix("_")] = function
    return function


# -- elementwise: the function of torch by the same name, where it is defined --------------------------------

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


# -- reductions ----------------------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any]) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = draw.shape()
        dim, keepdim = draw.dims(shape), draw.pick([True, False])
        x = draw.tensor(*shape)
        return (function, (x,)) if dim is None else (lambda x: function(x, dim, keepdim=keepdim), (x,))

    return case


SAMPLES |= {"sum": _reduction(torch.sum), "mean": _reduction(torch.mean)}


def _spread(function: Callable[..., Any]) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = (3, *draw.shape(1, 2))
        dim, correction, keepdim = draw.pick([None, 0, (0, 1)]), draw.pick([0, 1]), draw.pick([True, False])
        return (
            lambda x: function(x, dim, correction=correction, keepdim=keepdim),
            (draw.tensor(*shape),),
        )

    return case


SAMPLES |= {"var": _spread(torch.var), "std": _spread(torch.std)}


def _extreme(name: str) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = draw.shape(1, 3)
        x, dim, keepdim = draw.tensor(*shape), draw.dim(shape), draw.pick([True, False])
        ties = torch.round(x)
        short = name.removeprefix("a")
        return draw.pick([
            (lambda x: getattr(torch, name)(x, dim, keepdim=keepdim), (ties,)),
            (getattr(torch, short), (ties,)),
            (lambda x: getattr(torch, short)(x, dim, keepdim=keepdim).values + getattr(torch, name)(x), (x,)),
        ])  # fmt: skip

    return case


SAMPLES |= {"amax": _extreme("amax"), "amin": _extreme("amin")}


@sample
def logsumexp(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim, keepdim = draw.pick([draw.dim(shape), tuple(range(len(shape)))]), draw.pick([True, False])
    return lambda x: torch.logsumexp(x, dim, keepdim=keepdim), (draw.tensor(*shape),)


@sample
def cumsum(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim = draw.dim(shape)
    return lambda x: torch.cumsum(x, dim), (draw.tensor(*shape),)


@sample
def prod(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    x, dim, keepdim = draw.tensor(*shape), draw.dim(shape), draw.pick([True, False])
    zeros = torch.where(draw.mask(*shape), x, 0.0)
    return draw.pick([
        (lambda x: torch.prod(x, dim, keepdim=keepdim), (x,)),
        (lambda x: torch.prod(x, dim, keepdim=keepdim), (zeros,)),
        (torch.prod, (x,)),
    ])  # fmt: skip


@sample
def vector_norm(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    p, dim, keepdim = (
        draw.pick([1, 2, 3, 2.5, math.inf, -math.inf, 0]),
        draw.dims(shape),
        draw.pick([True, False]),
    )
    return draw.pick([
        (lambda x: torch.linalg.vector_norm(x, p, dim, keepdim), (draw.tensor(*shape),)),
        (lambda x: torch.norm(x, p), (draw.tensor(*shape),)),
        (lambda x: x.norm(), (draw.tensor(*shape),)),
    ])  # fmt: skip


# -- shapes and indices --------------------------------------------------------------------------------------


@sample
def reshape(draw: Draw) -> Case:
    x = draw.tensor(2, 3, 4)
    other = torch.zeros(4, 6)
    return draw.pick([
        lambda x: x.reshape(6, -1), lambda x: torch.reshape(x, (4, 6)), lambda x: x.reshape_as(other),
        lambda x: x.ravel(), lambda x: x.unflatten(2, (2, 2)), lambda x: x.repeat(2, 1, 3), lambda x: x.tile(2),
    ]), (x,)  # fmt: skip


@sample
def view(draw: Draw) -> Case:
    return draw.pick([lambda x: x.view(6, 4), lambda x: x.view((-1, 2))]), (
        draw.tensor(2, 3, 4).contiguous(),
    )


@sample
def flatten(draw: Draw) -> Case:
    return draw.pick([torch.flatten, lambda x: x.flatten(1), lambda x: x.flatten(0, 1)]), (
        draw.tensor(2, 3, 4),
    )


@sample
def squeeze(draw: Draw) -> Case:
    return draw.pick([torch.squeeze, lambda x: x.squeeze(0), lambda x: x.squeeze((0, 2))]), (
        draw.tensor(1, 3, 1, 2),
    )


@sample
def unsqueeze(draw: Draw) -> Case:
    shape = draw.shape()
    dim = draw.pick(range(-len(shape) - 1, len(shape) + 1))
    return lambda x: x.unsqueeze(dim), (draw.tensor(*shape),)


@sample
def transpose(draw: Draw) -> Case:
    return draw.pick([lambda x: x.transpose(0, 2), lambda x: x.mT, lambda x: torch.swapaxes(x, -1, 0)]), (
        draw.tensor(2, 3, 4),
    )


@sample
def permute(draw: Draw) -> Case:
    return draw.pick([
        lambda x: x.permute(2, 0, 1), lambda x: torch.permute(x, (-1, 0, 1)), lambda x: x.movedim(0, -1),
        lambda x: x.movedim((0, 1), (2, 0)), lambda x: x[0].t() + x[1].T,
    ]), (draw.tensor(2, 3, 4),)  # fmt: skip


@sample
def expand(draw: Draw) -> Case:
    return draw.pick([
        lambda x: x.expand(2, 4, 3), lambda x: x.expand(-1, 3), lambda x: torch.broadcast_to(x, (5, 4, 3)),
        lambda x: x.expand_as(torch.zeros(4, 3)),
    ]), (draw.tensor(4, 1),)  # fmt: skip


@sample
def flip(draw: Draw) -> Case:
    return draw.pick([lambda x: x.flip(0, 2), lambda x: torch.flip(x, (1,))]), (draw.tensor(2, 3, 4),)


@sample
def roll(draw: Draw) -> Case:
    return draw.pick([lambda x: x.roll(2), lambda x: torch.roll(x, (1, -1), (0, 2))]), (draw.tensor(2, 3, 4),)


@sample
def tril(draw: Draw) -> Case:
    k = draw.pick([-1, 0, 1])
    return lambda x: x.tril(k), (draw.tensor(*draw.shape(0, 1), 3, 4),)


@sample
def triu(draw: Draw) -> Case:
    k = draw.pick([-1, 0, 1])
    return lambda x: torch.triu(x, k), (draw.tensor(*draw.shape(0, 1), 3, 4),)


@sample
def cat(draw: Draw) -> Case:
    a, b, c = draw.tensor(2, 3), draw.tensor(2, 1), draw.tensor(2, 3)
    return draw.pick([
        (lambda a, b: torch.cat([a, b, a], 1), (a, b)), (lambda a, c: torch.cat((a, c)), (a, c)),
        (lambda a, c: torch.stack([a, c, a * c], -1), (a, c)), (lambda a, b: torch.hstack([a, b]), (a, b)),
        (lambda a, c: torch.vstack([a, c]), (a, c)), (lambda a: torch.cat([a, torch.ones(2, 2).to(a)], -1), (a,)),
    ])  # fmt: skip


@sample
def pad_constant(draw: Draw) -> Case:
    pads = draw.pick([(1, 2), (0, 1, 2, 0), (-1, 1), (1, 1, 1, 1, 1, 1)])
    return lambda x: F.pad(x, pads, value=0.7), (draw.tensor(2, 3, 4),)


@sample
def convert(draw: Draw) -> Case:
    other = torch.float32 if draw.dtype == torch.float64 else torch.float64
    return draw.pick([
        lambda x: x.to(other) * 2, lambda x: x.type(other) + x, lambda x: x.to(torch.zeros(1, dtype=other)),
        lambda x: x.float() * x.double(),
    ]), (draw.tensor(*draw.shape()),)  # fmt: skip


@sample
def getitem(draw: Draw) -> Case:
    rows, mask = torch.tensor([0, 2, 2, 1]), draw.mask(4, 3)
    return draw.pick([
        lambda x: x[1], lambda x: x[-1, 2], lambda x: x[1:3, ::2], lambda x: x[..., None, 1:], lambda x: x[rows],
        lambda x: x[:, [0, 0, 1]], lambda x: x[rows, torch.tensor([0, 1, 1, 2])], lambda x: x[mask],
        lambda x: x[rows[:, None], [0, 2]], lambda x: torch.stack(x.unbind(1)), lambda x: x.narrow(0, 1, 2),
        lambda x: x.select(1, -1), lambda x: x.index_select(1, rows[:2]), lambda x: x.masked_select(mask),
        lambda x: sum(p.sum() * i for i, p in enumerate(x.split(3), 1)), lambda x: torch.chunk(x, 2)[1],
        lambda x: x.split([1, 2], 1)[1], lambda x: x[None, 2:, True], lambda x: x.repeat_interleave(2, 0),
    ]), (draw.tensor(4, 3),)  # fmt: skip


@sample
def pick(draw: Draw) -> Case:
    return draw.pick([
        lambda x: F.pad(x, (1, 2), mode="reflect"), lambda x: F.pad(x, (2, 1), mode="replicate"),
        lambda x: F.pad(x, (1, 1), mode="circular"), lambda x: x[0].diagonal(), lambda x: x.diagonal(1, -2, -1),
        lambda x: x.unfold(2, 2, 1), lambda x: torch.diag(x[0]), lambda x: x[1, :, :3].trace(),
    ]), (draw.tensor(2, 3, 4),)  # fmt: skip


@sample
def unpick(draw: Draw) -> Case:
    return draw.pick([torch.diag, lambda x: torch.diag(x, 1)]), (draw.tensor(4),)


@sample
def gather(draw: Draw) -> Case:
    index = draw.labels(4, 2, 3)
    return draw.pick([
        lambda x: torch.gather(x, 1, index), lambda x: x.gather(-1, index[:1]), lambda x: x.sort(1).values,
        lambda x: x.topk(2).values, lambda x: x.median(1).values, lambda x: x.max(0).values,
        lambda x: torch.take_along_dim(x, index, 1), lambda x: x.sort(0, descending=True)[0], torch.median,
    ]), (draw.tensor(2, 4),)  # fmt: skip


@sample
def scatter_zeros(draw: Draw) -> Case:
    index = draw.labels(4, 2, 3)
    return lambda x, src: x.scatter_add(1, index, src), (draw.tensor(2, 4), draw.tensor(2, 3))


@sample
def embedding(draw: Draw) -> Case:
    tokens, padding = draw.labels(5, *draw.shape(0, 2)), draw.pick([None, 2])
    by_frequency = draw.pick([True, False]) and bool(tokens.dim())
    return (
        lambda w: F.embedding(tokens, w, padding, scale_grad_by_freq=by_frequency),
        (draw.tensor(5, 3),),
    )


# -- products ------------------------------------------------------------------------------------------------


@sample
def matmul(draw: Draw) -> Case:
    left, right = draw.pick([
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((2, 5, 2, 3), (3, 4)),
    ])  # fmt: skip
    return torch.matmul, (draw.tensor(*left), draw.tensor(*right))


@sample
def linear(draw: Draw) -> Case:
    batch = draw.shape(0, 2)
    inputs = (draw.tensor(*batch, 3), draw.tensor(4, 3), draw.tensor(4))
    return draw.pick(
        [(F.linear, inputs), (F.linear, inputs[:2]), (lambda x, w: F.linear(x, w[0]), inputs[:2])]
    )


@sample
def contract(draw: Draw) -> Case:
    a, b, c = draw.tensor(2, 3), draw.tensor(3, 4), draw.tensor(5, 3, 3)
    return draw.pick([
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), (a, b)), (lambda a, b: torch.einsum("ij,jk", a, b), (a, b)),
        (lambda a, b: torch.einsum("ij,jk->i", a, b), (a, b)), (lambda c: torch.einsum("bii->bi", c), (c,)),
        (lambda a, b, c: torch.einsum("ij,jk,bjl->bkl", a, b, c), (a, b, c)),
        (lambda a, c: torch.einsum("...j,...jk->...k", a[0], c), (a, c)), (lambda c: torch.einsum("bii", c), (c,)),
        (lambda a: torch.einsum("ij->ji", a), (a,)), (lambda a: torch.einsum("ij->", a), (a,)),
        (lambda a, b: torch.outer(a[0], b[0]), (a, b)), (lambda a, b: torch.addmm(b[0], a, b, alpha=0.5), (a, b)),
        (lambda a, b: torch.dot(a[0], b[:, 1]), (a, b)),
    ])  # fmt: skip


# -- convolution and pooling ---------------------------------------------------------------------------------


@sample
def convolution(draw: Draw) -> Case:
    stride, padding, dilation, groups = draw.pick(
        [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 2), ((2, 1), (0, 1), 1, 2)]
    )
    bias = (draw.tensor(4),) if draw.pick([True, False]) else ()
    x, w = draw.tensor(2, 2, 6, 5), draw.tensor(4, 2 // groups, 3, 2)
    return draw.pick([
        (lambda x, w, *b: F.conv2d(x, w, *(b or (None,)), stride, padding, dilation, groups), (x, w, *bias)),
        (lambda x, w, *b: F.conv1d(x[..., 0], w[:, :, 0], *(b or (None,)), groups=groups), (x, w, *bias)),
        (lambda x, w, *b: F.conv2d(x, w, *(b or (None,)), padding="same", groups=groups), (x, w, *bias)),
        (lambda x, w: F.conv_transpose2d(x, w[:2], stride=2, padding=1, output_padding=1), (x, w)),
        (lambda x, w: F.conv2d(x[0], w, None, stride, padding, dilation, groups), (x, w)),
    ])  # fmt: skip


@sample
def convolution_weight(draw: Draw) -> Case:
    how = draw.pick([([1, 1], [0, 0], [1, 1]), ([2, 1], [1, 0], [1, 1])])
    x, weight_shape = draw.tensor(2, 2, 5, 4), torch.Size([3, 2, 2, 2])
    g = torch.conv2d(x, x.new_zeros(weight_shape), None, *how)
    return (
        lambda g, x: PRIMITIVES["convolution_weight"](g, x, weight_shape, *how, False, [0, 0], 1),
        (draw.tensor(*g.shape), x),
    )


PATCHES: dict[str, Any] = {"kernel_size": (2, 3), "dilation": 1, "padding": (1, 0), "stride": (2, 1)}


@sample
def unfold(draw: Draw) -> Case:
    return lambda x: F.unfold(x, **PATCHES), (draw.tensor(2, 3, 5, 4),)


@sample
def fold(draw: Draw) -> Case:
    places = F.unfold(torch.zeros(1, 1, 5, 4), **PATCHES).shape[-1]
    return lambda x: F.fold(x, (5, 4), **PATCHES), (draw.tensor(2, 12, places),)


@sample
def max_pool2d(draw: Draw) -> Case:
    return draw.pick([
        lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, (3, 2), 1, (1, 0)), lambda x: F.max_pool2d(x[0], 2, 1),
        lambda x: F.max_pool2d(x, 2, ceil_mode=True), lambda x: F.max_pool1d(x[0], 2), lambda x: F.adaptive_max_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    ]), (draw.tensor(2, 2, 5, 4),)  # fmt: skip


@sample
def unpool(draw: Draw) -> Case:
    x = torch.randn(2, 2, 4, 4, generator=draw.generator)
    places = F.max_pool2d(x, 3, 1, return_indices=True)[1]
    return lambda g: PRIMITIVES["unpool"](g, places, x.shape), (draw.tensor(2, 2, 2, 2),)


@sample
def avg_pool2d(draw: Draw) -> Case:
    return draw.pick([
        lambda x: F.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, (3, 2), 1, (1, 0), count_include_pad=False),
        lambda x: F.avg_pool2d(x, 2, 1, ceil_mode=True, divisor_override=3), lambda x: F.avg_pool1d(x[0], 2),
    ]), (draw.tensor(2, 2, 5, 4),)  # fmt: skip


@sample
def avg_pool2d_backward(draw: Draw) -> Case:
    how = ([2, 2], [1, 1], [0, 0], False, True, None)
    return lambda g: PRIMITIVES["avg_pool2d_backward"](g, torch.Size([2, 2, 4, 3]), how), (
        draw.tensor(2, 2, 3, 2),
    )


@sample
def adaptive_avg_pool2d(draw: Draw) -> Case:
    return draw.pick([
        lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: F.adaptive_avg_pool2d(x, (3, None)),
        lambda x: F.adaptive_avg_pool1d(x[0], 2),
    ]), (draw.tensor(2, 2, 5, 4),)  # fmt: skip


@sample
def adaptive_avg_pool2d_backward(draw: Draw) -> Case:
    shape = torch.Size([2, 2, 5, 4])
    return lambda g: PRIMITIVES["adaptive_avg_pool2d_backward"](g, shape), (draw.tensor(2, 2, 2, 3),)


# -- normalization, losses -----------------------------------------------------------------------------------


@sample
def softmax(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim = draw.dim(shape)
    return draw.pick([lambda x: F.softmax(x, dim), lambda x: torch.softmax(x, dim)]), (draw.tensor(*shape),)


@sample
def log_softmax(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim = draw.dim(shape)
    return lambda x: F.log_softmax(x, dim), (draw.tensor(*shape),)


@sample
def batch_norm(draw: Draw) -> Case:
    shape = draw.pick([(5, 3), (2, 3, 4), (2, 3, 2, 3)])
    mean, var = draw.tensor(3), draw.tensor(3, low=0.5, high=2)
    inputs = (draw.tensor(*shape), draw.tensor(3), draw.tensor(3))
    training = draw.pick([True, False])

    def function(x: Any, *affine: Any) -> Any:
        return F.batch_norm(x, mean.clone(), var.clone(), *affine, training=training)

    return function, inputs[: draw.pick([1, 3])]


@sample
def layer_norm(draw: Draw) -> Case:
    shape = draw.pick([(4,), (3, 4)])
    inputs = (draw.tensor(2, 3, 4), draw.tensor(*shape), draw.tensor(*shape))
    return draw.pick([
        (lambda x, *affine: F.layer_norm(x, shape, *affine), inputs[: draw.pick([1, 3])]),
        (lambda x: F.group_norm(x.reshape(2, 4, 3), 2), inputs[:1]), (lambda x: F.instance_norm(x), inputs[:1]),
        (lambda x, w: F.rms_norm(x, shape, w, eps=1e-3), inputs[:2]),
    ])  # fmt: skip


def _labelled(loss: Callable[..., Any]) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        reduction, shape = draw.pick(["mean", "sum", "none"]), draw.pick([(4, 3), (2, 3, 2), (3,)])
        target = draw.labels(3, *shape[:1], *shape[2:]) if len(shape) > 1 else draw.labels(3)
        weight = draw.pick([None, torch.tensor([0.5, 1.0, 2.0], dtype=draw.dtype)])
        ignored = draw.pick([-100, 1])
        # The first label is none that is ignored: the mean of nothing is no number.
        first = torch.ones_like(target).cumsum(0) == 1 if target.dim() else None
        target = torch.tensor(2) if first is None else torch.where(first, 0, target)
        how = {"ignore_index": ignored, "reduction": reduction}
        return lambda x: loss(x, target, weight, **how), (draw.tensor(*shape),)

    return case


SAMPLES |= {"nll_loss": _labelled(F.nll_loss), "cross_entropy": _labelled(F.cross_entropy)}


# -- functions that are made of primitives, under the names that they have in torch --------------------------


@sample
def composite_losses(draw: Draw) -> Case:
    reduction = draw.pick(["mean", "sum", "none"])
    logits, other, chances = draw.tensor(4, 3), draw.tensor(4, 3), draw.tensor(4, 3, low=0.1, high=0.9)
    labels, weight = torch.tensor([0, 2, 1, 2]), torch.tensor([0.5, 1.0, 2.0], dtype=draw.dtype)
    r: dict[str, Any] = {"reduction": reduction}
    return draw.pick([
        (lambda x: F.cross_entropy(x, labels, **r), (logits,)),
        (lambda x: F.cross_entropy(x, labels, weight, ignore_index=1, label_smoothing=0.2, **r), (logits,)),
        (lambda x, t: F.cross_entropy(x, t, weight, label_smoothing=0.1, **r), (logits, chances)),
        (lambda x, t: F.mse_loss(x, t, **r), (logits, other)), (lambda x, t: F.l1_loss(x, t, **r), (logits, other)),
        (lambda x, t: F.smooth_l1_loss(x, t, beta=0.7, **r), (logits, other)),
        (lambda x, t: F.huber_loss(x, t, delta=0.7, **r), (logits, other)),
        (lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=weight, **r), (logits, chances)),
        (lambda x: F.binary_cross_entropy(x, (other > 0).to(x.dtype), **r), (chances,)),
        (lambda x, t: F.kl_div(x, t, **r), (logits, chances)),
        (lambda x, t: F.kl_div(x, t, log_target=True, **r), (logits, other)),
    ])  # fmt: skip


@sample
def composite_activations(draw: Draw) -> Case:
    x = draw.tensor(3, 4)
    return draw.pick([
        (F.relu6, (3 * x,)), (F.hardtanh, (x,)), (F.mish, (x,)),
        (F.prelu, (x, draw.tensor(4))), (F.softmin, (x,)), (F.tanhshrink, (x,)), (F.softsign, (x,)), (F.glu, (x,)),
        (F.normalize, (x,)), (lambda x, y: F.cosine_similarity(x, y), (x, draw.tensor(3, 4))),
        (lambda x, y: torch.lerp(x, y, 0.3), (x, draw.tensor(4))),
        (lambda x, y: torch.addcmul(x, y, y, value=0.5), (x, draw.tensor(4))),
        (lambda x: 2 / (1 + x * x) - (3 - x), (x,)), (lambda x: torch.rsub(x, 1.0, alpha=2), (x,)),
    ])  # fmt: skip


@sample
def composite_hard(draw: Draw) -> Case:
    return draw.pick([F.hardswish, F.hardsigmoid]), (3 * draw.tensor(3, 4),)


@sample
def attention(draw: Draw) -> Case:
    q, k, v = draw.tensor(2, 2, 3, 4), draw.tensor(2, 2, 5, 4), draw.tensor(2, 2, 5, 4)
    keep = torch.ones(3, 5, dtype=torch.bool).tril(1)

    def sdpa(*args: Any, **how: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):  # torch has no second derivative of the fused one
            return F.scaled_dot_product_attention(*args, **how)

    return draw.pick([
        (lambda q, k, v: sdpa(q, k, v), (q, k, v)), (lambda q, k, v: sdpa(q, k, v, keep), (q, k, v)),
        (lambda q, k, v: sdpa(q, k, v, is_causal=True, scale=0.7), (q, k, v)),
        (lambda q, k, v, m: sdpa(q, k, v, m), (q, k, v, draw.tensor(3, 5))),
    ])  # fmt: skip


# What only higher orders reach is reached through what it is the derivative of, and on its own here.


@sample
def put(draw: Draw) -> Case:
    index = draw.pick([(slice(1, 3),), (torch.tensor([0, 0]),)])
    return lambda g: PRIMITIVES["put"](g, index, (4, 3)), (draw.tensor(2, 3),)


# What in-place operations come to; the programs that use them are in test_inplace.py.


@sample
def overwrite(draw: Draw) -> Case:
    return lambda x, new: PRIMITIVES["overwrite"](x, new) * 1, (draw.tensor(2, 3), draw.tensor(2, 3))


@sample
def laid_out(draw: Draw) -> Case:
    return lambda x: PRIMITIVES["laid_out"](x, (1, 2)), (draw.tensor(2, 3),)


@sample
def strided_view(draw: Draw) -> Case:
    size, stride = draw.pick([((2, 2), (3, 1)), ((3,), (1,)), ((2, 3), (1, 1))])
    return lambda x: PRIMITIVES["strided_view"](x.contiguous(), size, stride, 1, ((3, 3), (3, 1))), (
        draw.tensor(3, 3),
    )


@sample
def write_view(draw: Draw) -> Case:
    def f(x: Any, new: Any) -> Any:
        whole = x * 1
        whole.T[draw_rows] = new
        return whole

    return f, (draw.tensor(2, 3), draw.tensor(2, 2))


draw_rows = slice(1, 3)


@sample
def put_items(draw: Draw) -> Case:
    index = draw.pick([torch.tensor([2, 0]), torch.tensor([True, False, True])])
    return lambda x, value: PRIMITIVES["put_items"](x, value, index), (draw.tensor(3, 2), draw.tensor(2, 2))


@sample
def embedding_rows(draw: Draw) -> Case:
    tokens = draw.labels(5, 4)
    return lambda g: PRIMITIVES["embedding_rows"](g, tokens, 5, draw_padding, False), (draw.tensor(4, 3),)


draw_padding = 2


@sample
def gammainc(draw: Draw) -> Case:
    a = draw.tensor(3, 4, low=0.5, high=3.0).detach()
    return lambda x: torch.special.gammainc(a, x), (draw.tensor(3, 4, low=0.5, high=3.0),)


@sample
def gammaincc(draw: Draw) -> Case:
    a = draw.tensor(3, 4, low=0.5, high=3.0).detach()
    return lambda x: torch.special.gammaincc(a, x), (draw.tensor(3, 4, low=0.5, high=3.0),)
