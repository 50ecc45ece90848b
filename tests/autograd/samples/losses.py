# ruff: noqa: E501
"""Normalization and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from .drawing import SAMPLES, Case, Draw, sample


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
