"""Convolution. Its derivatives are convolutions again, so two primitives close the circle.

========================  ==============================================================
what                      computed by
========================  ==============================================================
value                     ``torch.convolution``
gradient of the input     ``torch.convolution`` of g, transposed
gradient of the weight    torch's raw backward kernel, as a primitive
both, if nothing is       torch's raw backward kernel, with the bias in one call
traced
========================  ==============================================================

:func:`conv2d_by_unfold` is the readable rule: cut out the patches, multiply matrices. It is slower and tests
the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value
from .table import LINEAR, MULTILINEAR, primitive

Ints = Sequence[int]
_backward = torch.ops.aten.convolution_backward


def _input_gradient(
    g: Value, weight: Value, input_shape: torch.Size, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, groups: int,
) -> Value:  # fmt: skip
    """Each output element sends g back through the weights that made it: the transposed convolution."""
    lost = [0] * len(stride)  # rows at the edge that the stride has left out
    if not transposed:
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        lost = [
            n - ((m - 1) * s - 2 * p + r)
            for n, m, s, p, r in zip(input_shape[2:], g.shape[2:], stride, padding, reach, strict=True)
        ]
    result = torch.convolution(g, weight, None, stride, padding, dilation, not transposed, lost, groups)
    if transposed and result.shape != input_shape:  # places that only the output padding has made
        result = result[tuple(slice(n) for n in input_shape)]
    return result


def _convolution_jvp(
    input: Value, weight: Value, bias: Value, stride: Ints, padding: Ints, dilation: Ints, transposed: bool,
    output_padding: Ints, groups: int, input_dot: Value, weight_dot: Value, bias_dot: Value,
) -> Value:  # fmt: skip
    how = (None, stride, padding, dilation, transposed, output_padding, groups)
    change = convolution(input_dot, weight, *how) + convolution(input, weight_dot, *how)
    return change if bias is None else change + bias_dot.reshape(-1, *[1] * len(stride))


@primitive(
    # Linear in g, with the convolution as its transpose, and linear in the input.
    g=lambda v, input, stride, padding, dilation, transposed, output_padding, groups: torch.convolution(
        input, v, None, stride, padding, dilation, transposed, output_padding, groups
    ),
    input=lambda v, g, input_shape, stride, padding, dilation, transposed, groups: _input_gradient(
        g, v, input_shape, stride, padding, dilation, transposed, groups
    ),
    jvp=MULTILINEAR,
)
def convolution_weight(
    g: Tensor, input: Tensor, weight_shape: torch.Size, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int,
) -> Tensor:  # fmt: skip
    """The gradient of the weight: how each output element's g meets the inputs that it was made from."""
    weight = g.new_empty(weight_shape)
    how = (stride, padding, dilation, transposed, output_padding, groups)
    return _backward(g, input, weight, None, *how, [False, True, False])[1]  # type: ignore[no-any-return]


def _convolution_vjp(
    g: Value, wanted: Sequence[bool], input: Value, weight: Value, stride: Ints, padding: Ints,
    dilation: Ints, transposed: bool, output_padding: Ints, groups: int,
) -> list[Value]:  # fmt: skip
    how = (stride, padding, dilation, transposed)
    return [
        _input_gradient(g, weight, input.shape, *how, groups) if wanted[0] else None,
        convolution_weight(g, input, weight.shape, *how, output_padding, groups) if wanted[1] else None,
        g.sum([0, *range(2, len(g.shape))]) if wanted[2] else None,
        *[None] * 6,
    ]


def _convolution_kernel(
    g: Tensor, wanted: Sequence[bool], input: Tensor, weight: Tensor, stride: Ints, padding: Ints,
    dilation: Ints, transposed: bool, output_padding: Ints, groups: int,
) -> list[Tensor | None]:  # fmt: skip
    how = (stride, padding, dilation, transposed, output_padding, groups)
    channels = [weight.shape[1] * groups if transposed else weight.shape[0]]
    return [*_backward(g, input, weight, channels, *how, list(wanted[:3])), *[None] * 6]


@primitive("convolution", vjp=_convolution_vjp, fast=_convolution_kernel, jvp=_convolution_jvp)
def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int,
) -> Tensor:  # fmt: skip
    return torch.convolution(
        input, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    )


# -- the same as torch calls them ----------------------------------------------------------------------------


def _each(value: Any, count: int) -> list[int]:
    """One number for all dimensions, or one each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _convolve(input: Value, weight: Value, bias: Value, stride: Any, padding: Any, dilation: Any, groups: int,
              output_padding: Any = None) -> Value:  # fmt: skip
    rank = len(weight.shape) - 2
    stride, dilation = _each(stride, rank), _each(dilation, rank)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):  # the odd one goes to the end
            input = F.pad(input, [n for t in reversed(total) for n in (0, t % 2)])
        padding = [t // 2 for t in total]
    padding = [0] * rank if padding == "valid" else _each(padding, rank)
    single = len(input.shape) == rank + 1
    result = convolution(
        input.unsqueeze(0) if single else input, weight, bias, stride, padding, dilation,
        output_padding is not None, _each(output_padding or 0, rank), groups,
    )  # fmt: skip
    return result.squeeze(0) if single else result


@means("conv1d", "conv2d", "conv3d")
def _conv(input: Value, weight: Value, bias: Value = None, stride: Any = 1, padding: Any = 0,
          dilation: Any = 1, groups: int = 1) -> Value:  # fmt: skip
    return _convolve(input, weight, bias, stride, padding, dilation, groups)


@means("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(input: Value, weight: Value, bias: Value = None, stride: Any = 1, padding: Any = 0,
                    output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Value:  # fmt: skip
    rank = len(weight.shape) - 2
    return _convolve(input, weight, bias, stride, padding, dilation, groups, _each(output_padding, rank))


# -- the readable rule ---------------------------------------------------------------------------------------


@primitive(
    F.unfold, torch._C._nn.im2col,
    input=lambda g, input_shape, kernel_size, dilation, padding, stride: F.fold(
        g, tuple(input_shape[-2:]), kernel_size, dilation, padding, stride
    ),
    jvp=LINEAR,
)  # fmt: skip
def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """All patches of a picture, each a column."""
    return F.unfold(input, kernel_size, dilation, padding, stride)


@primitive(
    F.fold, torch._C._nn.col2im,
    input=lambda g, kernel_size, dilation, padding, stride: F.unfold(
        g, kernel_size, dilation, padding, stride
    ),
    jvp=LINEAR,
)  # fmt: skip
def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Patches laid back into a picture; where they overlap they are added."""
    return F.fold(input, output_size, kernel_size, dilation, padding, stride)


def conv2d_by_unfold(
    input: Value, weight: Value, bias: Value = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """``conv2d`` as one matrix product with all patches: the readable rule, with fold as its derivative.

    Arguments as :func:`torch.nn.functional.conv2d`, for batches (N, C, H, W) and numbers as padding.
    """
    n = input.shape[0]
    (sh, sw), (ph, pw), (dh, dw) = _each(stride, 2), _each(padding, 2), _each(dilation, 2)
    out_channels, _, kh, kw = weight.shape
    height = (input.shape[2] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (input.shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    patches = F.unfold(input, (kh, kw), (dh, dw), (ph, pw), (sh, sw))  # (N, C kh kw, places)
    patches = patches.reshape(n, groups, math.prod(weight.shape[1:]), height * width)
    filters = weight.reshape(groups, out_channels // groups, math.prod(weight.shape[1:]))
    result = (filters @ patches).reshape(n, out_channels, height, width)
    return result if bias is None else result + bias.reshape(-1, 1, 1)
