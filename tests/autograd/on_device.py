"""The device of the tests that ask for a GPU, ``JUDGE_DEVICE``, and numbers on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd as ag

DEVICE = os.environ.get("JUDGE_DEVICE", "cuda")
HAS_GPU = torch.cuda.is_available()
on_device = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not HAS_GPU, reason="needs a GPU"),
    pytest.mark.usefixtures("in_full_precision"),
]
two_devices = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU beside the CPU")
DOUBLE = torch.float64


def numbers(*shape: int, dtype: torch.dtype = DOUBLE, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=DOUBLE).to(DEVICE, dtype)


def whole(high: int, *shape: int, seed: int = 2) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


HALVES = [torch.float16, torch.bfloat16]


def compare(program: Callable[..., Any], *inputs: Tensor, tolerance: float = 1e-8) -> None:
    """A value and the gradients of all arguments; the same seed for both."""
    theirs = [x.clone().requires_grad_() for x in inputs]
    mine = [ag.Variable(x) for x in inputs]
    results = []
    for leaves in (theirs, mine):
        torch.manual_seed(7)
        y = program(*leaves)
        y = y[0] if isinstance(y, tuple) else y
        weights = torch.linspace(0.5, 1.5, y.numel(), device=y.device).reshape(y.shape).to(y.dtype)
        (y * weights).sum().backward()
        results.append([y.detach(), *[x.grad for x in leaves]])
    for i, (a, b) in enumerate(zip(results[1], results[0], strict=True)):
        what = f"gradient {i}" if i else "value"
        assert (a is None) == (b is None), what
        if b is not None:
            assert (a.dtype, a.device) == (b.dtype, b.device), what
            scale = max(1.0, b.abs().max().item()) if b.numel() else 1.0
            torch.testing.assert_close(
                a,
                b,
                rtol=0,
                atol=tolerance * scale,
                equal_nan=True,
                msg=lambda text, what=what: f"{what}\n{text}",
            )
