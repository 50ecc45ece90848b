"""Pooling in three dimensions, pooling by random or given places, and its reverse.

As in :mod:`.pooling`: the largest is a choice of places, which torch's kernel makes, and the mean is linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..traced import Value, raw
from .convolution import _each
from .table import LINEAR, primitive

aten = torch.ops.aten

# -- the largest ---------------------------------------------------------------------------------------------


def _winners(x: Value, places: Tensor, rank: int) -> Value:
    """The elements at these places, counted through the last `rank` dimensions."""
    return torch.gather(x.flatten(-rank), -1, places.flatten(-rank)).reshape(places.shape)


def _max_pooling(name: str, rank: int) -> None:
    function = getattr(aten, name)

    @stands_for(name)
    def pool(x: Value, *how: Any) -> tuple[Value, Tensor]:
        _, places = function(raw(x), *[raw(each) for each in how])
        return _winners(x, places, rank), places


for _name, _rank in (
    ("max_pool3d_with_indices", 3), ("adaptive_max_pool2d", 2), ("adaptive_max_pool3d", 3),
    ("fractional_max_pool2d", 2), ("fractional_max_pool3d", 3),
):  # fmt: skip
    _max_pooling(_name, _rank)


def _unpool(x: Value, places: Tensor, size: Sequence[int]) -> Value:
    """The values at these places, zero elsewhere; of several at one place the last counts."""
    rank = len(size)
    shape = (*x.shape[:-rank], math.prod(size))
    zeros = torch.zeros(shape, dtype=x.dtype, device=raw(x).device)
    filled = torch.scatter(zeros, -1, places.flatten(-rank), x.flatten(-rank))
    return filled.reshape((*x.shape[:-rank], *size))


@stands_for("max_unpool2d")
def _max_unpool2d(x: Value, places: Tensor, size: Sequence[int]) -> Value:
    return _unpool(x, places, size)


@stands_for("max_unpool3d")
def _max_unpool3d(x: Value, places: Tensor, size: Sequence[int], stride: Any, padding: Any) -> Value:
    return _unpool(x, places, size)


def _means(x: Value, how: Sequence[Any]) -> Value:
    return avg_pool3d(x, how)


def _adaptive_means(x: Value, size: Sequence[int]) -> Value:
    return adaptive_avg_pool3d(x, size)


# -- the mean ------------------------------------------------------------------------------------------------


@primitive(g=lambda v, how: _means(v, how), jvp=LINEAR)
def avg_pool3d_backward(g: Tensor, shape: torch.Size, how: Sequence[Any]) -> Tensor:
    """g divided evenly among the elements of each window: the transpose of avg_pool3d."""
    return aten.avg_pool3d_backward(g, g.new_empty(shape), *how)  # type: ignore[no-any-return]


@primitive(x=lambda g, x_shape, how: avg_pool3d_backward(g, x_shape, how), jvp=LINEAR)
def avg_pool3d(x: Tensor, how: Sequence[Any]) -> Tensor:
    return torch._C._nn.avg_pool3d(x, *how)


@primitive(g=lambda v, g_shape: _adaptive_means(v, g_shape[-3:]), jvp=LINEAR)
def adaptive_avg_pool3d_backward(g: Tensor, shape: torch.Size) -> Tensor:
    return aten._adaptive_avg_pool3d_backward(g, g.new_empty(shape))  # type: ignore[no-any-return]


@primitive(x=lambda g, x_shape: adaptive_avg_pool3d_backward(g, x_shape), jvp=LINEAR)
def adaptive_avg_pool3d(x: Tensor, size: Sequence[int]) -> Tensor:
    return torch._C._nn.adaptive_avg_pool3d(x, list(size))


@stands_for("avg_pool3d")
def _avg_pool3d(
    x: Value, kernel_size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Value:  # fmt: skip
    kernel = _each(kernel_size, 3)
    how = (
        kernel,
        _each(stride or kernel, 3),
        _each(padding, 3),
        ceil_mode,
        count_include_pad,
        divisor_override,
    )
    return avg_pool3d(x, how)


@stands_for("_adaptive_avg_pool3d")
def _adaptive_avg_pool3d(x: Value, output_size: Sequence[int]) -> Value:
    return adaptive_avg_pool3d(x, tuple(output_size))
