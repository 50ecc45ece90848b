"""Losses: how far the model is off, as one number or one each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import means
from ..refusals import ask
from ..traced import Value, raw
from .table import ELEMENTWISE, LINEAR, primitive

aten = torch.ops.aten
nll_loss_forward, nll_loss_backward = aten.nll_loss_forward.default, aten.nll_loss_backward.default


def _slopes(
    shape: torch.Size, like: Value, target: Tensor, weight: Any, reduction: str, ignore_index: int
) -> Tensor:
    """d(loss)/d(log_probs), a constant: the loss is linear. Minus the weight of each target, at its place."""
    zeros = raw(like).new_zeros(shape)
    classes = zeros.unsqueeze(0) if len(shape) == 1 else zeros
    labels = target.reshape(1) if len(shape) == 1 else target
    counted = labels != ignore_index
    labels = torch.where(counted, labels, 0)
    weights = counted.to(zeros.dtype) if weight is None else weight[labels] * counted
    total = weights.sum() if reduction == "mean" else 1.0
    shares = torch.where(counted, -weights / total, 0.0)  # also if none is counted
    slopes: Tensor = classes.scatter(1, labels.unsqueeze(1), shares.unsqueeze(1))
    return slopes.reshape(shape)


def _nll_vjp(
    g: Value, log_probs_shape: torch.Size, target: Tensor, weight: Any, reduction: str, ignore_index: int
) -> Value:
    slopes = _slopes(log_probs_shape, g, target, weight, reduction, ignore_index)
    return (g.unsqueeze(1) if reduction == "none" and len(slopes.shape) > 1 else g) * slopes


REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _nll_kernel(
    g: Tensor, log_probs: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int,
    total: Tensor | None,
) -> Tensor:  # fmt: skip
    if total is None:
        return _nll_vjp(g, log_probs.shape, target, weight, reduction, ignore_index)  # type: ignore[no-any-return]
    return nll_loss_backward(  # type: ignore[no-any-return]
        g, log_probs, target, weight, REDUCTIONS[reduction], ignore_index, total
    )


@primitive(log_probs=_nll_vjp, fast=_nll_kernel, jvp=LINEAR, aux=("total",))
def nll_loss(
    log_probs: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int
) -> tuple[Tensor, tuple[Tensor | None]]:
    """Minus the log probability of the right class."""
    if log_probs.dim() == 2 and log_probs.shape[:1] == target.shape:
        loss, total = nll_loss_forward(log_probs, target, weight, REDUCTIONS[reduction], ignore_index)
        return loss, (total,)
    loss = F.nll_loss(log_probs, target, weight, ignore_index=ignore_index, reduction=reduction)
    return loss, (None,)


def _cross_entropy_vjp(
    g: Value, x: Value, target: Tensor, weight: Any, reduction: str, ignore_index: int
) -> Value:
    """The probabilities minus what they should be: softmax(x) - 1 at the target, for g and weight 1."""
    slopes = _nll_vjp(g, x.shape, target, weight, reduction, ignore_index)
    return slopes - torch.softmax(x, _classes(x)) * slopes.sum(_classes(x), keepdim=True)


def _cross_entropy_kernel(
    g: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int,
    log_probs: Tensor, total: Tensor | None,
) -> Tensor:  # fmt: skip
    if total is None:
        g = _nll_vjp(g, log_probs.shape, target, weight, reduction, ignore_index)
    else:
        g = _nll_kernel(g, log_probs, target, weight, reduction, ignore_index, total)
    return torch._log_softmax_backward_data(g, log_probs, _classes(log_probs), log_probs.dtype)


def _cross_entropy_jvp(
    x_dot: Value, x: Value, target: Tensor, weight: Any, reduction: str, ignore_index: int
) -> Value:
    change = x_dot - (torch.softmax(x, _classes(x)) * x_dot).sum(_classes(x), keepdim=True)
    return nll_loss(change, target, weight, reduction, ignore_index)


def _classes(x: Value) -> int:
    return 1 if len(x.shape) > 1 else 0


@primitive(
    x=_cross_entropy_vjp, fast=_cross_entropy_kernel, jvp=_cross_entropy_jvp, aux=("log_probs", "total")
)
def cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int
) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """nll_loss(log_softmax(x)), in one step as in torch."""
    log_probs = torch.log_softmax(x, _classes(x))
    loss, (total,) = nll_loss.forward(log_probs, target, weight, reduction, ignore_index)
    return loss, (log_probs, total)


# -- made of primitives --------------------------------------------------------------------------------------


def reduction_of(reduction: str, size_average: Any, reduce: Any) -> str:
    if size_average is not None or reduce is not None:
        size_average, reduce = (True if each is None else each for each in (size_average, reduce))
        return "none" if not reduce else "mean" if size_average else "sum"
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(loss: Value, reduction: str) -> Value:
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


@means(F.nll_loss)
def _nll_loss(
    input: Value, target: Tensor, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean",
) -> Value:  # fmt: skip
    return nll_loss(input, target, raw(weight), reduction_of(reduction, size_average, reduce), ignore_index)


@means(F.cross_entropy, checked=True)
def _cross_entropy(
    input: Value, target: Value, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Value:  # fmt: skip
    of_classes = type(target) is Tensor and not target.is_floating_point() and weight is None
    is_number = type(ignore_index) is int and type(label_smoothing) is float
    if not (of_classes and is_number and len(input.shape) == 2):
        # Else the kernels look at all of it.
        how = (weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        ask(F.cross_entropy, (input, target, *how), {})
    reduction = reduction_of(reduction, size_average, reduce)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    probabilities = target.dtype.is_floating_point and target.shape == input.shape
    if not (probabilities or label_smoothing):
        return cross_entropy(input, raw(target), raw(weight), reduction, ignore_index)
    classes = _classes(input)
    log_probs = torch.log_softmax(input, classes)
    if probabilities:
        return _soft_cross_entropy(log_probs, target, weight, reduction, label_smoothing, classes)
    target, weight = raw(target), raw(weight)
    hard = nll_loss(log_probs, target, weight, reduction, ignore_index)
    # Smoothing mixes in the loss of guessing all classes alike.
    shape = [-1 if d == classes else 1 for d in range(len(input.shape))]
    weighted = log_probs if weight is None else log_probs * weight.reshape(shape)
    counted = target != ignore_index
    smooth = torch.where(counted, -weighted.sum(classes), 0.0)
    if reduction == "mean":
        weights = counted if weight is None else weight[torch.where(counted, target, 0)] * counted
        smooth = smooth.sum() / weights.sum()
    elif reduction == "sum":
        smooth = smooth.sum()
    return (1 - label_smoothing) * hard + label_smoothing / input.shape[classes] * smooth


def _soft_cross_entropy(
    log_probs: Value, target: Value, weight: Any, reduction: str, label_smoothing: float, classes: int
) -> Value:
    """Targets that are probabilities."""
    count = log_probs.shape[classes]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / count
    if weight is not None:
        target = target * weight.reshape([-1 if d == classes else 1 for d in range(len(log_probs.shape))])
    terms = log_probs * target
    if reduction == "none":
        return -terms.sum(classes)
    if reduction == "mean":  # of no rows it is NaN, a constant
        return -terms.sum() / (terms.numel() // count) if terms.numel() else -terms.sum() + torch.nan
    return -terms.sum()


@means(F.binary_cross_entropy_with_logits)
def _bce_with_logits(
    input: Value, target: Value, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", pos_weight: Any = None,
) -> Value:  # fmt: skip
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    surprise = -F.logsigmoid(input)  # of a 1; that of a 0 is larger by the input itself
    positive = surprise if pos_weight is None else surprise * (1 + (pos_weight - 1) * target)
    loss = (1 - target) * input + positive
    loss = loss if weight is None else loss * weight
    if loss.dtype != target.dtype:  # torch writes it into 1 - target
        loss = loss.to(target.dtype)
    return reduced(loss, reduction_of(reduction, size_average, reduce))


# torch bounds the logarithms by -100, so that log 0 is a number, and p (1 - p) in the derivative by 1e-12.
@primitive(
    p=lambda g, p, target: g * (p - target) / torch.clamp((1 - p) * p, min=1e-12),
    target=lambda g, p: g * (torch.log1p(-p) - torch.log(p)),
    jvp=ELEMENTWISE,
)
def log_loss(p: Tensor, target: Tensor) -> Tensor:
    """Minus the log probability of the target, 0 or 1 or between."""
    return F.binary_cross_entropy(p, target, reduction="none")


@means(F.binary_cross_entropy)
def _binary_cross_entropy(
    input: Value, target: Value, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Value:  # fmt: skip
    if tuple(target.shape) != tuple(input.shape):
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    for name, x in (("input", raw(input)), ("target", raw(target))):
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise RuntimeError(f"all elements of {name} should be between 0 and 1")
    loss = log_loss(input, target)
    return reduced(loss if weight is None else loss * weight, reduction_of(reduction, size_average, reduce))


@means(F.kl_div)
def _kl_div(
    input: Value, target: Value, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    log_target: bool = False,
) -> Value:  # fmt: skip
    if log_target:
        loss = torch.exp(target) * (target - input)
    else:
        loss = torch.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.shape else loss
    return reduced(loss, reduction_of(reduction, size_average, reduce))
