"""Optimizers of one rule, on each engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cuda import bucket as cuda

ENGINES = {
    "fused CPU engine": {"fused": True},
    "fused CUDA engine": {"fused": True},
    "foreach engine": {"foreach": True},
    "eager engine": {"fused": False},
}


def interpret_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setattr(cuda.CudaBucket, "serves", lambda device: device == "cpu")


def optimizer_of(
    rule: Callable[..., Any], params: Any, states: tuple[str, ...] = (), **options: Any
) -> ElementwiseOptimizer:
    class User(ElementwiseOptimizer):
        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

    User.rule = staticmethod(rule)  # type: ignore[assignment]
    User.states = states
    return User(params, {"lr": 0.25, **options})


def normal(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
