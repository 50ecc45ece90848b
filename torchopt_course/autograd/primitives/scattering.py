"""Elements written to positions: the opposite of choosing them. Mostly linear in what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..dispatch import means
from ..traced import Traced, Value, is_tensor, raw
from .indexing import _getitem
from .table import LINEAR, primitive


@primitive(
    x=lambda g, dim, index: torch.scatter(g, dim, index, 0.0),
    src=lambda g, dim, index, src_shape: _at_start(torch.gather(g, dim, index), src_shape),
    jvp=LINEAR,
)
def scatter(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return torch.scatter(x, dim, index, src)


def _at_start(g: Value, shape: Sequence[int]) -> Value:
    """Torch reads only as much of src as the index is large; the rest counts for nothing."""
    if not shape:  # a number is one element of one dimension
        return g.reshape(())
    padding = [
        n for size, whole in zip(reversed(g.shape), reversed(shape), strict=True) for n in (0, whole - size)
    ]
    return torch.nn.functional.pad(g, padding) if any(padding) else g


@primitive(
    x=lambda g, indices, accumulate: g if accumulate else _cleared(g, indices),
    values=lambda g, indices: _getitem(g, _full(indices)),
    jvp=LINEAR,
)
def index_put(x: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """x with the values at the indices, or added to what is there."""
    return torch.ops.aten.index_put(x, list(indices), values, accumulate)  # type: ignore[no-any-return]


def _cleared(g: Value, indices: Sequence[Any]) -> Value:
    return index_put(g, indices, raw(g).new_zeros(()))


def _full(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


# -- reductions of all that goes to the same place -----------------------------------------------------------


def _product_vjp(
    g: Value, wanted: Sequence[bool], x: Value, dim: int, index: Tensor, src: Value, ans: Value
) -> list[Value]:
    """The product of all the others: the whole divided by this one; if this is 0, of those that are not."""
    zero_x, zero_src = raw(x) == 0, raw(src) == 0
    zeros = zero_x.long().scatter_add(dim, index, zero_src.long())
    if (isinstance(x, Traced) or isinstance(src, Traced)) and bool((zeros > 1).any()):
        raise NotImplementedError(
            "no second derivative is known for scatter_reduce('prod') with two zeros in one place"
        )
    rest = scatter_product(torch.where(zero_x, 1.0, x), dim, index, torch.where(zero_src, 1.0, src))

    def others(own: Value, zero: Tensor, whole: Value, rest: Value, zeros: Tensor) -> Value:
        return torch.where(zero, torch.where(zeros == 1, rest, 0.0), whole / torch.where(zero, 1.0, own))

    shares: list[Value] = [None, None, None, None]
    if wanted[0]:
        shares[0] = g * others(x, zero_x, ans, rest, zeros)
    if wanted[3]:
        there = [torch.gather(each, dim, index) for each in (g, ans, rest, zeros)]
        shares[3] = there[0] * others(src, zero_src, *there[1:])
    return shares


@primitive(vjp=_product_vjp)
def scatter_product(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """x times all that goes to the same place."""
    return torch.scatter_reduce(x, dim, index, src, "prod")


def _extreme_vjp(
    g: Value, wanted: Sequence[bool], x: Value, dim: int, index: Tensor, src: Value, include_self: bool,
    ans: Value,
) -> list[Value]:  # fmt: skip
    """Evenly among all that are the largest. As in torch x is one of them even where it does not count."""
    hit_x, hit_src = raw(x) == raw(ans), raw(src) == torch.gather(raw(ans), dim, index)
    share = g / hit_x.to(g.dtype).scatter_add(dim, index, hit_src.to(g.dtype))
    own = hit_x * share
    return [
        (own if include_self else own.scatter(dim, index, 0.0)) if wanted[0] else None,
        None,
        None,
        hit_src * torch.gather(share, dim, index) if wanted[3] else None,
        None,
        None,
    ]


@primitive(vjp=_extreme_vjp)
def scatter_extreme(
    x: Tensor, dim: int, index: Tensor, src: Tensor, which: str, include_self: bool
) -> Tensor:
    """The largest (amax) or smallest (amin) of x and all that goes to the same place."""
    return torch.scatter_reduce(x, dim, index, src, which, include_self=include_self)


# -- the same as torch calls them ----------------------------------------------------------------------------


@means("scatter")
def _scatter(x: Value, dim: int, index: Tensor, src: Value, *, reduce: str | None = None) -> Value:
    if not is_tensor(src):
        src = torch.full(index.shape, src, dtype=x.dtype, device=raw(x).device)
    if reduce is not None:
        raise NotImplementedError(
            "scatter(reduce=...), which torch does not differentiate either; use scatter_reduce"
        )
    return scatter(x, dim, index, src) if x.shape and index.numel() else x + 0 if not index.numel() else src


@means("scatter_reduce")
def _scatter_reduce(
    x: Value, dim: int, index: Tensor, src: Value, reduce: str, *, include_self: bool = True
) -> Value:
    index = raw(index)
    if not x.shape:
        one = _scatter_reduce(
            x.reshape(1), 0, index.reshape(1), src.reshape(1), reduce, include_self=include_self
        )
        return one.reshape(())
    if src.shape != index.shape:
        src = src[tuple(slice(n) for n in index.shape)]
    if reduce in ("amax", "amin"):
        return scatter_extreme(x, dim, index, src, reduce, include_self)
    neutral = 1.0 if reduce == "prod" else 0.0
    if not include_self:
        x = torch.scatter(
            x, dim, index, torch.full(index.shape, neutral, dtype=x.dtype, device=raw(x).device)
        )
    if reduce == "sum":
        return torch.scatter_add(x, dim, index, src)
    if reduce == "mean":
        ones = torch.ones_like(raw(src))
        count = torch.ones_like(raw(x))
        count = count if include_self else count.scatter(dim, index, 0.0)
        return torch.scatter_add(x, dim, index, src) / count.scatter_add(dim, index, ones).clamp(min=1)
    if reduce == "prod":
        return scatter_product(x, dim, index, src)
    raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")


@means("index_reduce")
def _index_reduce(
    x: Value, dim: int, index: Tensor, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    if not x.shape:
        index = index.reshape(())
        return _scatter_reduce(x, 0, index, source.reshape(()), reduce, include_self=include_self)
    shape = [-1 if d == dim % len(x.shape) else 1 for d in range(len(x.shape))]
    whole = index.reshape(shape).expand(source.shape)
    return _scatter_reduce(x, dim, whole, source, reduce, include_self=include_self)


@means("index_put")
@stands_for("index_put", "_index_put_impl", "_unsafe_index_put")
def _index_put(
    x: Value, indices: Sequence[Any], values: Value, accumulate: bool = False, unsafe: bool = False
) -> Value:
    return index_put(x, tuple(indices), values, accumulate)


@means("masked_scatter")
def _masked_scatter(x: Value, mask: Tensor, source: Value) -> Value:
    """The places of the mask are filled with the first elements of the source."""
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    mask = mask.expand(shape)
    number = (mask.reshape(-1).cumsum(0) - 1).clamp(min=0).reshape(shape)
    flat = source.reshape(-1)
    if not flat.numel():
        return x.expand(shape)
    return torch.where(mask, flat[torch.where(mask, number, 0)], x)


@means("put")
def _put(x: Value, index: Tensor, source: Value, accumulate: bool = False) -> Value:
    flat = index_put(x.reshape(-1), (index.reshape(-1),), source.reshape(-1), accumulate)
    return flat.reshape(x.shape)


@means("take")
def _take(x: Value, index: Tensor) -> Value:
    return x.reshape(-1)[index]


@means("diagonal_scatter")
def _diagonal_scatter(x: Value, src: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    return _with_part(x, src, lambda positions: torch.diagonal(positions, offset, dim1, dim2))


@means("slice_scatter")
def _slice_scatter(
    x: Value, src: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    index = (*[slice(None)] * (dim % x.dim()), slice(start, end, step))
    return _with_part(x, src, lambda positions: positions[index])


def _with_part(x: Value, src: Value, take: Callable[[Tensor], Tensor]) -> Value:
    """x, where the elements that are taken are those of src."""
    places = take(torch.arange(raw(x).numel(), device=raw(x).device).reshape(x.shape))
    return index_put(x.reshape(-1), (places,), src.to(x.dtype).expand(places.shape)).reshape(x.shape)


@means("index_fill")
def _index_fill(x: Value, dim: int, index: Tensor, value: Value) -> Value:
    places = torch.zeros(x.shape, dtype=torch.bool, device=raw(x).device).index_fill(dim, index, True)
    return torch.where(places, value if is_tensor(value) else raw(x).new_full((), value), x)
