"""Random numbers whose distribution depends on a variable.

A sample of a gamma distribution moves when its shape parameter moves: by torch's kernels, which solve for the
slope at a fixed quantile. Samples without such a derivative stand in `flat.py`.

Source: Figurnov, Mohamed, Mnih, *Implicit reparameterization gradients*, NeurIPS 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..traced import Value, raw
from .table import primitive


@primitive("_standard_gamma", shape=lambda g, shape, ans: g * torch._standard_gamma_grad(shape, ans))
def standard_gamma(shape: Tensor, generator: Any = None) -> Tensor:
    return torch._standard_gamma(shape, generator)


@primitive(
    "_sample_dirichlet",
    alpha=lambda g, alpha, ans: _dirichlet_vjp(g, alpha, ans),
)
def sample_dirichlet(alpha: Tensor, generator: Any = None) -> Tensor:
    return torch._sample_dirichlet(alpha, generator)


def _dirichlet_vjp(g: Value, alpha: Value, ans: Value) -> Value:
    total = alpha.sum(-1, True).expand(alpha.shape)
    slope = torch._dirichlet_grad(ans, alpha, total)
    return slope * (g - (ans * g).sum(-1, True))


@stands_for("rrelu_with_noise", "rrelu_with_noise_functional")
def _rrelu(
    x: Value,
    noise: Value,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Value:
    """The slope on the left is random."""
    if not training:
        return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)
    # 1 on the right. The kernel goes through it as through contiguous memory.
    slopes = torch.empty_like(raw(x), memory_format=torch.contiguous_format)
    torch.ops.aten.rrelu_with_noise(raw(x), slopes, lower, upper, training, generator)
    return slopes * x
