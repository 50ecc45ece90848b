"""Elements chosen by position: the gradient goes back to where each one came from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, all_raw, is_tensor, raw
from .table import LINEAR, primitive


def is_basic(index: Any) -> bool:
    """Integers, slices, None and ... choose each element at most once; tensors may repeat."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = int | slice | type(None) | type(...)
    return all(isinstance(part, basic) and not isinstance(part, bool) for part in parts)


def plain_index(index: Any) -> Any:
    """Without what is traced. A single boolean is read at once, as in torch: it may be written to later."""
    if isinstance(index, tuple):
        return tuple(map(plain_index, index))
    index = all_raw(index)
    is_boolean = isinstance(index, Tensor) and index.dtype == torch.bool and not index.shape
    return bool(index) if is_boolean else index


@primitive(g=lambda v, index: v[index], jvp=LINEAR)
def put(g: Tensor, index: Any, shape: Sequence[int]) -> Tensor:
    """Zeros of the given shape with g added at the index: what came from one place twice is summed."""
    result = g.new_zeros(shape)
    if is_basic(index):
        result[index] = g
        return result
    positions = torch.arange(result.numel(), device=g.device).reshape(shape)[index]
    result.view(-1).index_add_(0, positions.reshape(-1), g.reshape(-1))
    return result


@primitive(x=lambda g, index, x_shape: put(g, index, x_shape), jvp=LINEAR, views=True)
def getitem(x: Tensor, index: Any) -> Tensor:
    return x[index]


Select = Callable[[Tensor], Tensor]


def _picked(v: Value, select: Select) -> Value:
    return pick(v, select)


@primitive(g=lambda v, select: _picked(v, select), jvp=LINEAR)
def unpick(g: Tensor, select: Select, shape: Sequence[int]) -> Tensor:
    result = g.new_zeros(shape)
    positions = select(torch.arange(result.numel(), device=g.device).reshape(shape))
    result.view(-1).index_add_(0, positions.reshape(-1), g.reshape(-1))
    return result


@primitive(x=lambda g, select, x_shape: unpick(g, select, x_shape), jvp=LINEAR)
def pick(x: Tensor, select: Select) -> Tensor:
    """Elements of x, chosen by a function that is given the position of each."""
    return x.reshape(-1)[select(torch.arange(x.numel(), device=x.device).reshape(x.shape))]


@primitive(g=lambda v, dim, index: torch.gather(v, dim, index), jvp=LINEAR)
def scatter_zeros(g: Tensor, dim: int, index: Tensor, shape: Sequence[int]) -> Tensor:
    return g.new_zeros(shape).scatter_add_(dim, index, g)


@primitive("gather", x=lambda g, dim, index, x_shape: scatter_zeros(g, dim, index, x_shape), jvp=LINEAR)
def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    return torch.gather(x, dim, index)


def _embedding_rows_vjp(v: Value, indices: Tensor, padding_idx: int) -> Value:
    """The rows looked up, never divided by how often they were: that is torch's way of taking smaller steps,
    not a derivative, and torch's own second derivative leaves it out as well."""
    rows = v[indices]
    return rows if padding_idx < 0 else torch.where((indices != padding_idx).unsqueeze(-1), rows, 0.0)


@primitive(g=_embedding_rows_vjp, jvp=LINEAR)
def embedding_rows(g: Tensor, indices: Tensor, count: int, padding_idx: int, by_frequency: bool) -> Tensor:
    """Each row of g added to the row of the table that it was looked up from."""
    return torch.ops.aten.embedding_dense_backward(g, indices, count, padding_idx, by_frequency)  # type: ignore[no-any-return]


@primitive(weight=lambda g, indices, weight_shape, padding_idx, by_frequency:
               embedding_rows(g, indices, weight_shape[0], padding_idx, by_frequency))  # fmt: skip
def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, by_frequency: bool = False) -> Tensor:
    """Rows of a table. The padding row's gradient counts as zero, so the JVP is the VJP's transpose."""
    return torch.embedding(weight, indices, padding_idx)


# -- the same as torch calls them ----------------------------------------------------------------------------


@means(Tensor.__getitem__, checked=True)
def _getitem(x: Value, index: Any) -> Value:
    return getitem(x, plain_index(index))


@means("select")
def _select(x: Value, dim: int, index: int) -> Value:
    return getitem(x, (*_before(x, dim), index))


@means("narrow")
def _narrow(x: Value, dim: int, start: int, length: int) -> Value:
    start = int(start) % max(x.shape[dim], 1) if start < 0 else int(start)
    return getitem(x, (*_before(x, dim), slice(start, start + length)))


@means("index_select")
def _index_select(x: Value, dim: int, index: Tensor) -> Value:
    if not x.shape:
        return x + 0 if len(index.reshape(-1)) else x.reshape(1)[index.reshape(-1)]
    return getitem(x, (*_before(x, dim), index.reshape(-1)))


def _before(x: Value, dim: int) -> tuple[slice, ...]:
    """The part of an index that takes all of the dimensions before `dim`."""
    return (slice(None),) * (dim % max(len(x.shape), 1))


@means("unbind")
def _unbind(x: Value, dim: int = 0) -> tuple[Value, ...]:
    return tuple(_select(x, dim, i) for i in range(x.shape[dim]))


@means("split", "split_with_sizes")
def _split(x: Value, split_size_or_sections: Any, dim: int = 0) -> tuple[Value, ...]:
    sizes = [piece.shape[dim] for piece in torch.split(raw(x), split_size_or_sections, dim)]
    starts = itertools.accumulate(sizes, initial=0)
    return tuple(_narrow(x, dim, start, size) for start, size in zip(starts, sizes, strict=False))


@means("chunk")
def _chunk(x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    sizes = [piece.shape[dim] for piece in torch.chunk(raw(x), chunks, dim)]
    pieces: tuple[Value, ...] = _split(x, sizes, dim)
    return pieces


@means("masked_select")
def _masked_select(x: Value, mask: Tensor) -> Value:
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    return getitem(x.expand(shape), mask.expand(shape))


@means("masked_fill")
def _masked_fill(x: Value, mask: Tensor, value: Value) -> Value:
    if not is_tensor(value):
        value = raw(x).new_full((), value)  # of x's dtype, whatever the number
    return torch.where(mask, value, x)


@means("take_along_dim")
def _take_along_dim(x: Value, indices: Tensor, dim: int | None = None) -> Value:
    if dim is None:
        return _take_along_dim(x.reshape(-1), indices.reshape(-1), 0)
    dim = dim % len(x.shape)
    around = [*x.shape[:dim], 1, *x.shape[dim + 1 :]]
    shape = list(torch.broadcast_shapes(around, indices.shape))
    index = torch.where(indices < 0, indices + x.shape[dim], indices).expand(shape)
    shape[dim] = x.shape[dim]
    return gather(x.expand(shape), dim, index)


@means("scatter_add")
def _scatter_add(x: Value, dim: int, index: Tensor, src: Value) -> Value:
    if src.shape != index.shape:
        src = getitem(src, tuple(slice(n) for n in index.shape))
    return x + scatter_zeros(src, dim, index, tuple(x.shape))


@primitive(
    "diagonal",
    x=lambda g, x_shape, offset, dim1, dim2: unpick(
        g, lambda positions: torch.diagonal(positions, offset, dim1, dim2), x_shape
    ),
    jvp=LINEAR,
    views=True,
)
def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return torch.diagonal(x, offset, dim1, dim2)


@means(torch.linalg.diagonal)
def _diagonal_of_matrices(A: Value, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    return diagonal(A, offset, dim1, dim2)


@means("diag")
def _diag(x: Value, diagonal: int = 0) -> Value:
    if len(x.shape) == 2:
        return torch.diagonal(x, diagonal)
    return unpick(x, lambda positions: torch.diagonal(positions, diagonal), [x.shape[0] + abs(diagonal)] * 2)


@means("trace")
def _trace(x: Value) -> Value:
    return diagonal(x).sum()


@primitive(
    Tensor.unfold,
    x=lambda g, x_shape, dimension, size, step: unpick(
        g, lambda positions: positions.unfold(dimension, size, step), x_shape
    ),
    jvp=LINEAR,
    views=True,
)
def windows(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    return x.unfold(dimension, size, step)


@means("repeat_interleave")
def _repeat_interleave(
    x: Value, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Value:
    x, dim = (x.reshape(-1), 0) if dim is None else (x, dim)
    rows = torch.arange(x.shape[dim], device=raw(x).device)
    return _index_select(x, dim, torch.repeat_interleave(rows, repeats))


@means(torch.embedding)
def _embedding(
    weight: Value,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    if sparse:
        raise NotImplementedError("embedding(sparse=True): gradients here are dense; use sparse=False")
    return embedding(weight, raw(indices), padding_idx, scale_grad_by_freq)
