# ruff: noqa: E501
"""Convolution and pooling, and what their derivatives are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from torchopt_course.autograd import PRIMITIVES

from .drawing import Case, Draw, sample


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
