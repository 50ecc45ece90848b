"""What in-place operations come to: tensors of which some elements were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, raw
from ..views import Follows, Step, memory_of, replay
from .indexing import unpick
from .table import LINEAR, primitive


@primitive(x=lambda g: torch.zeros_like(g), new=lambda g: g, jvp=lambda new_dot: new_dot)
def overwrite(x: Tensor, new: Tensor) -> Tensor:
    """What a tensor is after it was filled with something else: its old value counts nothing, which is 0."""
    return new


@primitive(x=lambda g: g, jvp=LINEAR)
def laid_out(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The same elements, with other distances in memory."""
    return torch.empty_strided(x.shape, tuple(stride), dtype=x.dtype, device=x.device).copy_(x)


def _back_from_strides(g: Value, size: Any, stride: Any, offset: int, memory: tuple[Any, Any]) -> Value:
    def select(positions: Tensor) -> Tensor:
        return laid_out(positions, memory[1]).as_strided(size, stride, offset)  # type: ignore[no-any-return]

    return unpick(g, select, memory[0])


@primitive(x=_back_from_strides, jvp=LINEAR, views=True)
def strided_view(
    x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int, memory: tuple[Any, Any]
) -> Tensor:
    """A view of a tensor by distances in memory."""
    if x.stride() != memory[1]:
        x = laid_out(x, memory[1])
    return x.as_strided(tuple(size), tuple(stride), x.storage_offset() + offset)


def view_by_strides(x: Value, size: Sequence[int], stride: Sequence[int], offset: int) -> Value:
    """The same, from the first element of x on; of what is not x's own nobody knows the gradient.

    Raises:
        NotImplementedError: elements that x has not, or x has gaps in memory, or one place for two elements.
    """
    tensor = raw(x)
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    own = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if offset < 0 or reach > own or own + 1 != tensor.numel():
        raise NotImplementedError(
            "as_strided beyond the tensor's own elements, or of one with gaps in memory"
        )
    return strided_view(x, tuple(size), tuple(stride), offset, memory_of(x))


@means("as_strided", checked=True)
def _as_strided(
    input: Value, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Value:
    """A view by distances in memory, so of the base."""
    base = input.base if isinstance(input, Follows) else input
    if storage_offset is None:
        storage_offset = raw(input).storage_offset()
    return view_by_strides(base, size, stride, storage_offset - raw(base).storage_offset())


def _part(g: Value, steps: Sequence[Step], memory: tuple[Any, Any]) -> Value:
    """The elements of g that a view has."""
    return replay(laid_out(g, memory[1]), steps)


def _without_part(g: Value, steps: Sequence[Step], memory: tuple[Any, Any]) -> Value:
    """g, but 0 where the view is."""
    rest = laid_out(g, memory[1])
    torch.Tensor.zero_(replay(rest, steps))
    return rest


def _with_part(x_dot: Value, new_dot: Value, steps: Sequence[Step], memory: tuple[Any, Any]) -> Value:
    whole = laid_out(x_dot, memory[1])
    torch.Tensor.copy_(replay(whole, steps), new_dot)
    return whole


@primitive(x=_without_part, new=_part, jvp=_with_part)
def write_view(x: Tensor, new: Tensor, steps: Sequence[Step], memory: tuple[Any, Any]) -> Tensor:
    """What the base is after a view of it was written to. The memory has the new values already."""
    return x.detach()


def _left_over(g: Value, index: Any) -> Value:
    rest = torch.ones(g.shape, dtype=torch.bool, device=raw(g).device)
    rest[index] = False
    return torch.where(rest, g, 0.0)


@primitive(x=_left_over, value=lambda g, index: g[index], jvp=LINEAR)
def put_items(x: Tensor, value: Tensor, index: Any) -> Tensor:
    """x with other elements at the index."""
    result = x.clone()
    result[index] = value
    return result
