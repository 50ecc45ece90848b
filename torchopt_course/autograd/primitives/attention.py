"""Attention, written as in the paper: softmax(Q Kᵀ / √d) V.

``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` come here by themselves: the bodies of torch's own
Python functions run on traced values.

Source: Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decompose import stands_for
from ..dispatch import means
from ..traced import Value, raw
from .rules import HALF, widened


@stands_for("_safe_softmax")
def safe_softmax(scores: Value, dim: int, dtype: Any = None) -> Value:
    """Where everything is masked there is nothing to attend to: zero, not 0 / 0."""
    scores = scores if dtype is None else scores.to(dtype)
    masked = (raw(scores) == -math.inf).all(dim, keepdim=True)
    if masked.is_cpu and not bool(masked.any()):  # a GPU would have to be waited for
        return torch.softmax(scores, dim)
    return torch.where(masked, 0.0, torch.softmax(torch.where(masked, 0.0, scores), dim))


@stands_for("_scaled_dot_product_flash_attention_for_cpu")
def _flash_attention(
    query: Value, key: Value, value: Value, dropout_p: float = 0.0, is_causal: bool = False, *,
    attn_mask: Value = None, scale: float | None = None,
) -> tuple[Value, Tensor]:  # fmt: skip
    how: dict[str, Any] = {"attn_mask": raw(attn_mask), "scale": scale}
    normalizers = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        raw(query), raw(key), raw(value), dropout_p, is_causal, **how
    )[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale
    ), normalizers


@means("scaled_dot_product_attention", "_scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Value, key: Value, value: Value, attn_mask: Value = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    if not raw(value).numel():  # nothing to attend to: torch gives zeros of the query's shape
        zeros = raw(query).new_zeros(*query.shape[:-1], value.shape[-1])
        return zeros + (query.sum() + key.sum() + value.sum()) * 0
    if enable_gqa:  # several heads of the query share one of the key
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("explicit attn_mask should not be set when is_causal=True")
        size = (query.shape[-2], key.shape[-2])
        attn_mask = torch.ones(size, dtype=torch.bool, device=raw(query).device).tril()
    if value.dtype in HALF:  # torch's kernels add up in single precision
        wide = map(widened, (query, key, value, attn_mask))
        return scaled_dot_product_attention(*wide, dropout_p, scale=scale).to(value.dtype)
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1] or 1)  # of no features every score is 0
    scores = query @ key.transpose(-2, -1) * scale
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = raw(scores).new_zeros(()).masked_fill(~attn_mask, -math.inf)
        scores = scores + attn_mask
    return F.dropout(safe_softmax(scores, -1), dropout_p) @ value
