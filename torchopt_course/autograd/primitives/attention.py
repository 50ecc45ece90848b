"""Attention, written as in the paper: softmax(Q Kᵀ / √d) V.

``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` come here by themselves: the bodies of torch's own
Python functions run on traced values.

Source: Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value, raw


@means("scaled_dot_product_attention", "_scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Value, key: Value, value: Value, attn_mask: Value = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    if enable_gqa:  # several heads of the query share one of the key
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("explicit attn_mask should not be set when is_causal=True")
        size = (query.shape[-2], key.shape[-2])
        attn_mask = torch.ones(size, dtype=torch.bool, device=raw(query).device).tril()
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = raw(scores).new_zeros(()).masked_fill(~attn_mask, -math.inf)
        scores = scores + attn_mask
    return F.dropout(torch.softmax(scores, -1), dropout_p) @ value
