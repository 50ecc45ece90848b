"""Distances between points, and losses that compare several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decompose import stands_for
from ..dispatch import body_of, means, otherwise
from ..traced import Value, raw
from .reductions import _norm_vjp, vector_norm
from .table import primitive

aten = torch.ops.aten


# For p = ∞ torch's kernels give the whole gradient to each of several largest differences; those of a norm
# share it.


def _length_vjp(g: Value, x: Value, ans: Value, p: float) -> Value:
    """Of ‖x‖ₚ in the last dimension."""
    if p == math.inf:
        return g.unsqueeze(-1) * torch.sign(x) * (torch.abs(raw(x)) == raw(ans).unsqueeze(-1))
    return _norm_vjp(g, x, ans, p, -1, False)


def _cdist_vjp(g: Value, wanted: Sequence[bool], x1: Value, x2: Value, p: float, ans: Value) -> list[Value]:
    slopes = _length_vjp(g, x1.unsqueeze(-2) - x2.unsqueeze(-3), ans, p)
    return [slopes.sum(-2), -slopes.sum(-3), None]


def _cdist_kernel(
    g: Tensor, wanted: Sequence[bool], x1: Tensor, x2: Tensor, p: float, ans: Tensor
) -> list[Tensor | None]:
    def of(g: Tensor, x: Tensor, other: Tensor, ans: Tensor) -> Tensor:
        given = [each.contiguous() for each in (g, x, other)]
        return aten._cdist_backward(*given, p, ans.contiguous())  # type: ignore[no-any-return]

    return [
        of(g, x1, x2, ans) if wanted[0] else None,
        of(g.mT, x2, x1, ans.mT) if wanted[1] else None,
        None,
    ]


@primitive(vjp=_cdist_vjp, fast=_cdist_kernel)
def cdist(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    """Of each point to each: ‖x - y‖ₚ."""
    return torch.cdist(x1, x2, p, "donot_use_mm_for_euclid_dist")


@stands_for("_cdist_forward")
@means("cdist")
def _cdist(x1: Value, x2: Value, p: float = 2.0, compute_mode: Any = None) -> Value:
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    return cdist(x1.expand(*batch, *x1.shape[-2:]), x2.expand(*batch, *x2.shape[-2:]), float(p))


def _pdist_vjp(g: Value, x: Value, p: float, ans: Value) -> Value:
    first, second = torch.triu_indices(x.shape[0], x.shape[0], 1, device=raw(x).device)
    slopes = _length_vjp(g, x[first] - x[second], ans, p)
    return torch.zeros_like(raw(x)).index_add(0, first, slopes).index_add(0, second, -slopes)


def _pdist_kernel(g: Tensor, x: Tensor, p: float, ans: Tensor) -> Tensor:
    if not g.numel():  # of no points torch's kernel would kill the process
        return torch.zeros_like(x)
    return aten._pdist_backward(g.contiguous(), x.contiguous(), p, ans)  # type: ignore[no-any-return]


@primitive(x=_pdist_vjp, fast=_pdist_kernel)
def pdist(x: Tensor, p: float) -> Tensor:
    """Of each pair of points."""
    return F.pdist(x, p)


@stands_for("_pdist_forward")
@means("pdist")
def _pdist(input: Value, p: float = 2.0) -> Value:
    return pdist(input, float(p))


@primitive(norm=lambda g: g, jvp=lambda norm_dot: norm_dot)
def bounded_norm(norm: Tensor, least: float) -> Tensor:
    """Torch bounds it behind its autograd's back."""
    return norm.clamp(min=least)


@means("cosine_similarity")
def _cosine_similarity(x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """Of two directions: x1 · x2 / (‖x1‖ ‖x2‖), each norm at least eps."""
    dtype = torch.promote_types(x1.dtype, x2.dtype)
    x1, x2 = torch.broadcast_tensors(x1.to(dtype), x2.to(dtype))

    def direction(x: Value) -> Value:
        return x / bounded_norm(vector_norm(x, 2, dim, True), eps)

    return (direction(x1) * direction(x2)).sum(dim)


# -- connectionist temporal classification -------------------------------------------------------------------


def _ctc_kernel(
    g: Tensor, log_probs: Tensor, targets: Tensor, lengths: Sequence[Any], blank: int, zero_infinity: bool,
    log_alpha: Any, ans: Tensor,
) -> Tensor:  # fmt: skip
    return aten._ctc_loss_backward(g, log_probs, targets, *lengths, ans, log_alpha, blank, zero_infinity)  # type: ignore[no-any-return]


def _ctc_jvp(
    log_probs_dot: Value, log_probs: Tensor, targets: Tensor, lengths: Sequence[Any], blank: int,
    zero_infinity: bool, log_alpha: Any, ans: Tensor,
) -> Value:  # fmt: skip
    """The examples do not depend on each other: the gradient of each, times its own direction."""
    slopes = _ctc_kernel(
        torch.ones_like(ans), log_probs, targets, lengths, blank, zero_infinity, log_alpha, ans
    )
    return (slopes * log_probs_dot).sum([0, 2] if len(slopes.shape) == 3 else [0, 1])


@primitive(log_probs=_ctc_kernel, jvp=_ctc_jvp)
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    lengths: Sequence[Any],
    blank: int,
    zero_infinity: bool,
    log_alpha: Tensor,
) -> Tensor:
    """Minus the log probability of all alignments. There is no second derivative, as in torch."""
    return aten._ctc_loss(log_probs, targets, *lengths, blank, zero_infinity)[0]  # type: ignore[no-any-return]


@means(torch.ctc_loss)
def _ctc_losses(
    log_probs: Value, targets: Tensor, input_lengths: Any, target_lengths: Any, *how: Any, **named: Any
) -> Value:
    """Torch reads lengths from tensors, wherever they are, except where it takes a call apart."""
    lengths = [
        n.reshape(-1).tolist() if isinstance(n, Tensor) else n for n in (input_lengths, target_lengths)
    ]
    return otherwise(torch.ctc_loss, (log_probs, targets, *lengths, *how), named)


@stands_for("_use_cudnn_ctc_loss")
def _by_cudnn(*_: Any) -> bool:
    """Torch takes cuDNN's kernel for short targets of int32, here always its own."""
    return False


@stands_for("_ctc_loss")
def _ctc_loss(
    log_probs: Value, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[Value, Tensor]:  # fmt: skip
    lengths = (input_lengths, target_lengths)
    log_alpha = aten._ctc_loss(raw(log_probs), targets, *lengths, blank, zero_infinity)[1]
    return ctc_loss(log_probs, targets, lengths, blank, zero_infinity, log_alpha), log_alpha


# -- a linear layer with its loss ----------------------------------------------------------------------------


if hasattr(F, "linear_cross_entropy"):  # younger than the oldest torch that we run on
    _linear_then_loss = body_of(F.linear_cross_entropy)
    assert _linear_then_loss is not None

    @means(F.linear_cross_entropy)
    def _linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> Value:
        """In one piece: the options only say how to cut it into parts, to need less memory."""
        return _linear_then_loss(*args, **kwargs)  # type: ignore[misc]


# -- margins -------------------------------------------------------------------------------------------------


def _positive(x: Value) -> Value:
    """x where it is positive, which NaN is not, else 0."""
    return torch.where(x > 0, x, 0.0)


@stands_for("multilabel_margin_loss_forward")
def _multilabel_margin_loss(x: Value, target: Tensor, reduction: int) -> tuple[Value, Tensor]:
    """Σ max(0, 1 - (x[j] - x[i])) / C over all labels j, which end at the first -1, and all other i."""
    is_target = aten.multilabel_margin_loss_forward(raw(x), target, reduction)[1]
    rows, labels = (x.unsqueeze(0), target.unsqueeze(0)) if len(x.shape) < 2 else (x, target)
    if not x.shape:
        rows, labels = x.reshape(1, 1), target.reshape(1, 1)
    there = (labels >= 0).long().cumprod(-1) > 0
    chosen = torch.gather(rows, -1, torch.where(there, labels, 0))
    pairs = _positive(1 - chosen.unsqueeze(-1) + rows.unsqueeze(-2))
    counted = there.unsqueeze(-1) & (is_target.reshape(rows.shape) == 0).unsqueeze(-2)
    losses = torch.where(counted, pairs, 0.0).sum([-2, -1]) / rows.shape[-1]
    if reduction == 0:
        return losses.reshape(target.shape[:-1]), is_target
    return (losses.mean() if reduction == 1 else losses.sum()), is_target


@stands_for("multi_margin_loss")
def _multi_margin_loss(
    x: Value,
    target: Tensor,
    p: float = 1,
    margin: float = 1,
    weight: Tensor | None = None,
    reduction: int = 1,
) -> Value:
    """Σ max(0, margin - x[target] + x[i])ᵖ / C over all i but the target."""
    rows, labels = x.reshape(1, -1) if len(x.shape) < 2 else x, target.reshape(-1, 1)
    terms = _positive(margin - torch.gather(rows, 1, labels) + rows)
    terms = terms if p == 1 else terms * terms
    if weight is not None:
        terms = terms * weight.reshape(-1)[labels]
    others = torch.arange(rows.shape[1], device=labels.device) != labels
    losses = torch.where(others, terms, 0.0).mean(1)
    if reduction == 0:
        return losses.reshape(target.shape)
    return losses.mean() if reduction == 1 else losses.sum()
