"""Pooling: the largest or the mean of each window.

The largest is a choice: torch's kernel says which element won, and the rest is taking elements by position.
The mean is linear. First-order gradients come from torch's raw backward kernels; when they are recorded
themselves, the max pool's is a scatter and the mean's is that kernel as a primitive. The readable rules,
:func:`max_pool2d_by_unfold` and :func:`avg_pool2d_by_unfold`, cut out the windows; they test the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value, raw
from .convolution import _each
from .table import LINEAR, primitive

aten = torch.ops.aten


@primitive(
    g=lambda v, places: torch.gather(v.flatten(-2), -1, places.flatten(-2)).reshape(places.shape), jvp=LINEAR
)
def unpool(g: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """g added at the places of the winners."""
    planes = g.new_zeros((*shape[:-2], shape[-2] * shape[-1]))
    return planes.scatter_add_(-1, places.flatten(-2), g.flatten(-2)).reshape(shape)


@primitive(
    input=lambda g, places, input_shape: unpool(g, places, input_shape),
    fast=lambda g, input, places, how: aten.max_pool2d_with_indices_backward(g, input, *how, places)
    if how else unpool(g, places, input.shape),
    jvp=lambda input_dot, places: torch.gather(
        input_dot.flatten(-2), -1, places.flatten(-2)).reshape(places.shape),
)  # fmt: skip
def max_pool2d(input: Tensor, places: Tensor, values: Tensor, how: Sequence[Any]) -> Tensor:
    """The winners of each window, which torch's kernel has found: their places (in the plane) and values."""
    return values


@primitive(g=lambda v, how: F.avg_pool2d(v, *how), jvp=LINEAR)
def avg_pool2d_backward(g: Tensor, shape: torch.Size, how: Sequence[Any]) -> Tensor:
    """g divided evenly among the elements of each window: the transpose of avg_pool2d."""
    return aten.avg_pool2d_backward(g, g.new_empty(shape), *how)  # type: ignore[no-any-return]


@primitive(
    input=lambda g, input_shape, how: avg_pool2d_backward(g, input_shape, how),
    jvp=LINEAR,
)
def avg_pool2d(input: Tensor, how: Sequence[Any]) -> Tensor:
    return F.avg_pool2d(input, *how)


@primitive(g=lambda v, g_shape: F.adaptive_avg_pool2d(v, g_shape[-2:]), jvp=LINEAR)
def adaptive_avg_pool2d_backward(g: Tensor, shape: torch.Size) -> Tensor:
    return aten._adaptive_avg_pool2d_backward(g, g.new_empty(shape))  # type: ignore[no-any-return]


@primitive(input=lambda g, input_shape: adaptive_avg_pool2d_backward(g, input_shape), jvp=LINEAR)
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    return F.adaptive_avg_pool2d(input, output_size)


# -- the same as torch calls them ----------------------------------------------------------------------------


def _pair(value: Any) -> list[int]:
    return _each(value, 2)


@means("max_pool2d")
def _max_pool2d(
    input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    kernel = _pair(kernel_size)
    how = (kernel, _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode)
    values, places = aten.max_pool2d_with_indices(raw(input), *how)
    result = max_pool2d(input, places, values, how)
    return (result, places) if return_indices else result


@means("max_pool1d")
def _max_pool1d(
    input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """As a picture of height 1."""
    (kernel,), (pad,), (dilate,) = _each(kernel_size, 1), _each(padding, 1), _each(dilation, 1)
    (step,) = _each(stride or kernel, 1)
    result, places = _max_pool2d(
        input.unsqueeze(-2), (1, kernel), (1, step), (0, pad), (1, dilate), ceil_mode, True
    )
    return (result.squeeze(-2), places.squeeze(-2)) if return_indices else result.squeeze(-2)


@means("adaptive_max_pool2d")
def _adaptive_max_pool2d(input: Value, output_size: Any, return_indices: bool = False) -> Any:
    size = [n or m for n, m in zip(_pair(output_size), input.shape[-2:], strict=True)]
    values, places = aten.adaptive_max_pool2d(raw(input), size)
    result = max_pool2d(input, places, values, ())
    return (result, places) if return_indices else result


def _with_indices(name: str, pool: Any) -> None:
    @means(f"{name}_with_indices")
    def both(*args: Any, return_indices: bool = True, **named: Any) -> Any:
        return pool(*args, **named, return_indices=True)


_with_indices("max_pool1d", _max_pool1d)
_with_indices("max_pool2d", _max_pool2d)
_with_indices("adaptive_max_pool2d", _adaptive_max_pool2d)


@means("avg_pool2d")
def _avg_pool2d(
    input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Value:  # fmt: skip
    kernel = _pair(kernel_size)
    how = (kernel, _pair(stride or kernel), _pair(padding), ceil_mode, count_include_pad, divisor_override)
    return avg_pool2d(input, how)


@means("avg_pool1d")
def _avg_pool1d(
    input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:  # fmt: skip
    (kernel,), (pad,) = _each(kernel_size, 1), _each(padding, 1)
    (step,) = _each(stride or kernel, 1)
    how = ([1, kernel], [1, step], [0, pad], ceil_mode, count_include_pad, None)
    return avg_pool2d(input.unsqueeze(-2), how).squeeze(-2)


@means("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(input: Value, output_size: Any) -> Value:
    size = [n or m for n, m in zip(_pair(output_size), input.shape[-2:], strict=True)]
    return adaptive_avg_pool2d(input, size)


@means("adaptive_avg_pool1d")
def _adaptive_avg_pool1d(input: Value, output_size: Any) -> Value:
    return adaptive_avg_pool2d(input.unsqueeze(-2), [1, *_each(output_size, 1)]).squeeze(-2)


# -- the readable rules --------------------------------------------------------------------------------------


def _windows(input: Value, kernel_size: Any, stride: Any, padding: Any, filler: float) -> Value:
    """(N, C, elements of a window, height, width)"""
    (kh, kw), (sh, sw), (ph, pw) = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    padded = F.pad(input, (pw, pw, ph, ph), value=filler)
    n, channels, h, w = padded.shape
    columns = F.unfold(padded, (kh, kw), stride=(sh, sw))
    return columns.reshape(n, channels, kh * kw, (h - kh) // sh + 1, (w - kw) // sw + 1)


def max_pool2d_by_unfold(input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Value:
    """``max_pool2d`` as the largest along each window: the readable rule. Arguments as in torch."""
    lowest = float(raw(input).min()) - 1.0  # unfold multiplies by zero, so -inf would turn into NaN
    return _windows(input, kernel_size, stride, padding, lowest).max(2).values


def avg_pool2d_by_unfold(input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Value:
    """``avg_pool2d`` as the mean along each window: the readable rule. Arguments as in torch."""
    return _windows(input, kernel_size, stride, padding, 0.0).mean(2)
