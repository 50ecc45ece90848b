"""Losses of numbers: squared, absolute, and in between."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value
from .losses import reduced, reduction_of


def _difference(input: Value, target: Value) -> Value:
    if input.shape != target.shape:
        torch.broadcast_shapes(input.shape, target.shape)
    return input - (target.to(input.dtype) if target.dtype is torch.bool else target)


@means(F.mse_loss)
def _mse_loss(
    input: Value, target: Value, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Value = None,
) -> Value:  # fmt: skip
    loss = torch.square(_difference(input, target))
    return _weighted(loss, weight, reduction_of(reduction, size_average, reduce))


def _weighted(loss: Value, weight: Value, reduction: str) -> Value:
    if weight is not None:
        loss = loss * weight
        if reduction == "mean":
            return loss.sum() / weight.expand(loss.shape).sum()
    return reduced(loss, reduction)


def _forgotten_weight() -> Value:
    """Torch's l1_loss does not hand on its weight (2.14): it stands in the frame of the call."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not F.l1_loss.__code__:
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else frame.f_locals.get("weight")


@means(F.l1_loss)
def _l1_loss(
    input: Value, target: Value, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Value:
    weight = _forgotten_weight()
    if weight is not None and weight.shape != input.shape:
        raise ValueError("Weights and input must have the same size.")
    loss = torch.abs(_difference(input, target))
    return _weighted(loss, weight, reduction_of(reduction, size_average, reduce))


@means(F.smooth_l1_loss)
def _smooth_l1_loss(
    input: Value, target: Value, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    beta: float = 1.0,
) -> Value:  # fmt: skip
    if beta == 0:
        return F.l1_loss(input, target, size_average, reduce, reduction)
    far = torch.abs(_difference(input, target))
    is_far = far > beta  # NaN is not
    near = torch.where(is_far, 0.0, far)  # finite where far is not
    loss = torch.where(is_far, far - 0.5 * beta, 0.5 * near * near / beta)
    return reduced(loss, reduction_of(reduction, size_average, reduce))


@means(F.huber_loss)
def _huber_loss(
    input: Value, target: Value, reduction: str = "mean", delta: float = 1.0, weight: Value = None
) -> Value:
    far = torch.abs(_difference(input, target))
    is_far = far > delta
    near = torch.where(is_far, 0.0, far)
    loss = torch.where(is_far, delta * (far - 0.5 * delta), 0.5 * near * near)
    return reduced(loss if weight is None else loss * weight, reduction)
