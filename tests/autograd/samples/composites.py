# ruff: noqa: E501
"""Functions that are made of primitives, under the names that they have in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .drawing import Case, Draw, sample


@sample
def composite_losses(draw: Draw) -> Case:
    reduction = draw.pick(["mean", "sum", "none"])
    logits, other, chances = draw.tensor(4, 3), draw.tensor(4, 3), draw.tensor(4, 3, low=0.1, high=0.9)
    labels, weight = torch.tensor([0, 2, 1, 2]), torch.tensor([0.5, 1.0, 2.0], dtype=draw.dtype)
    r: dict[str, Any] = {"reduction": reduction}
    return draw.pick([
        (lambda x: F.cross_entropy(x, labels, **r), (logits,)),
        (lambda x: F.cross_entropy(x, labels, weight, ignore_index=1, label_smoothing=0.2, **r), (logits,)),
        (lambda x, t: F.cross_entropy(x, t, weight, label_smoothing=0.1, **r), (logits, chances)),
        (lambda x, t: F.mse_loss(x, t, **r), (logits, other)), (lambda x, t: F.l1_loss(x, t, **r), (logits, other)),
        (lambda x, t: F.smooth_l1_loss(x, t, beta=0.7, **r), (logits, other)),
        (lambda x, t: F.huber_loss(x, t, delta=0.7, **r), (logits, other)),
        (lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=weight, **r), (logits, chances)),
        (lambda x: F.binary_cross_entropy(x, (other > 0).to(x.dtype), **r), (chances,)),
        (lambda x, t: F.kl_div(x, t, **r), (logits, chances)),
        (lambda x, t: F.kl_div(x, t, log_target=True, **r), (logits, other)),
    ])  # fmt: skip


@sample
def composite_activations(draw: Draw) -> Case:
    x = draw.tensor(3, 4)
    return draw.pick([
        (F.relu6, (3 * x,)), (F.hardtanh, (x,)), (F.mish, (x,)),
        (F.prelu, (x, draw.tensor(4))), (F.softmin, (x,)), (F.tanhshrink, (x,)), (F.softsign, (x,)), (F.glu, (x,)),
        (F.normalize, (x,)), (lambda x, y: F.cosine_similarity(x, y), (x, draw.tensor(3, 4))),
        (lambda x, y: torch.lerp(x, y, 0.3), (x, draw.tensor(4))),
        (lambda x, y: torch.addcmul(x, y, y, value=0.5), (x, draw.tensor(4))),
        (lambda x: 2 / (1 + x * x) - (3 - x), (x,)), (lambda x: torch.rsub(x, 1.0, alpha=2), (x,)),
    ])  # fmt: skip


@sample
def composite_hard(draw: Draw) -> Case:
    return draw.pick([F.hardswish, F.hardsigmoid]), (3 * draw.tensor(3, 4),)


@sample
def attention(draw: Draw) -> Case:
    q, k, v = draw.tensor(2, 2, 3, 4), draw.tensor(2, 2, 5, 4), draw.tensor(2, 2, 5, 4)
    keep = torch.ones(3, 5, dtype=torch.bool).tril(1)

    def sdpa(*args: Any, **how: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):  # torch has no second derivative of the fused one
            return F.scaled_dot_product_attention(*args, **how)

    return draw.pick([
        (lambda q, k, v: sdpa(q, k, v), (q, k, v)), (lambda q, k, v: sdpa(q, k, v, keep), (q, k, v)),
        (lambda q, k, v: sdpa(q, k, v, is_causal=True, scale=0.7), (q, k, v)),
        (lambda q, k, v, m: sdpa(q, k, v, m), (q, k, v, draw.tensor(3, 5))),
    ])  # fmt: skip
