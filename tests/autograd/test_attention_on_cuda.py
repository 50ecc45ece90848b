"""Attention on a GPU, in all ways in which torch computes it, and functions that draw random numbers there.

Values and gradients beside torch's, with the same random numbers. ``JUDGE_DEVICE=cpu`` runs it on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .on_device import DEVICE, DOUBLE, HALVES, compare, numbers, on_device

pytestmark = on_device


BACKENDS = [
    SDPBackend.MATH,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
]
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "mask": {"attn_mask": True},
    "several heads": {"enable_gqa": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_attention(backend: SDPBackend, way: str, dtype: torch.dtype):
    heads = 2 if way == "several heads" else 4
    q = numbers(2, 4, 16, 32, dtype=dtype)
    k, v = numbers(2, heads, 16, 32, dtype=dtype, seed=2), numbers(2, heads, 16, 32, dtype=dtype, seed=3)
    how = dict(WAYS[way])
    if "attn_mask" in how:
        how["attn_mask"] = numbers(16, 16, dtype=dtype, seed=4)

    def attend(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, **how)

    try:
        attend(*[x.clone().requires_grad_() for x in (q, k, v)])
    except RuntimeError as error:
        pytest.skip(f"torch has no such kernel: {error}")
    compare(attend, q, k, v, tolerance=2e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=str)
def test_attention_with_dropout_draws_as_torchs_formula(dtype: torch.dtype):
    """Torch's fused kernels draw otherwise, each in its own way."""
    given = [numbers(2, 4, 16, 32, dtype=dtype, seed=s) for s in (1, 2, 3)]
    with sdpa_kernel(SDPBackend.MATH):
        compare(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.4), *given, tolerance=1e-5
        )


@pytest.mark.parametrize("train", [True, False])
def test_multi_head_attention(train: bool):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, dropout=0.3, batch_first=True).to(DEVICE, DOUBLE).train(train)
    padding = torch.zeros(3, 5, dtype=torch.bool, device=DEVICE)
    padding[0, 3:] = True
    for weights in (True, False):
        with sdpa_kernel(SDPBackend.MATH):
            compare(
                lambda x, weights=weights: layer(x, x, x, key_padding_mask=padding, need_weights=weights),
                numbers(3, 5, 16),
            )


DRAWING: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout of a column": lambda x: F.dropout(x[:, 1], 0.3),
    "dropout behind the start": lambda x: F.dropout(x.reshape(-1)[1:], 0.3),
    "dropout transposed": lambda x: F.dropout(x.transpose(0, 1), 0.3),
    "dropout expanded": lambda x: F.dropout(x[:1].expand(5, 4, 6, 6), 0.3),
    "dropout of all": lambda x: F.dropout(x, 1.0),
    "dropout in place": lambda x: F.dropout(x * 2, 0.3, inplace=True),
    "dropout1d": lambda x: F.dropout1d(x[0], 0.3),
    "dropout2d": lambda x: F.dropout2d(x, 0.3),
    "dropout3d": lambda x: F.dropout3d(x.unsqueeze(0), 0.3),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, True),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.3, True),
    "native_dropout": lambda x: torch.native_dropout(x, 0.3, True)[0],
    "rrelu": lambda x: F.rrelu(x, training=True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, dim=1),
    "normal": lambda x: torch.normal(x, 1.0) * x,
    "randn_like": lambda x: torch.randn_like(x) * x,
    "gamma": lambda x: torch.distributions.Gamma(x.exp(), 1.0).rsample(),
    "dirichlet": lambda x: torch.distributions.Dirichlet(x.exp()).rsample(),
    "beta": lambda x: torch.distributions.Beta(x.exp(), x.exp() + 1).rsample(),
    "fractional pooling": lambda x: F.fractional_max_pool2d(x, 2, output_size=(3, 3)),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()) * x,
}


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DRAWING)
def test_the_same_random_numbers(name: str, dtype: torch.dtype):
    x = numbers(3, 4, 6, 6, dtype=dtype)
    try:
        DRAWING[name](x.clone().requires_grad_()).sum().backward()
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"torch: {error}")
    tolerance = {DOUBLE: 1e-8, torch.float32: 1e-5}.get(dtype, 3e-2)
    compare(DRAWING[name], x, tolerance=tolerance)
