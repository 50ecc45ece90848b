"""Rules that make numbers of several tensors, and tensors in two groups for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch as xp
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cpu.reductions import BLOCK

from .reducing import normal


class ClippedAdam(ElementwiseOptimizer):
    """Adam with gradients clipped by their norm over all tensors (or over the group)."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 0.1, max_norm: float = 1.0, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "max_norm": max_norm, "of_group": False, **options})

    @staticmethod
    def coefficients(step: Any, lr: Any, max_norm: Any, of_group: Any) -> Any:
        return {
            "lr": lr / (1 - 0.9**step),
            "unbias": (1 - 0.999**step) ** -0.5,
            "max_norm": max_norm,
            "of_group": bool(of_group),
        }

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any, max_norm: Any, of_group: Any
    ) -> Any:
        norm = xp.norm(g, over="group" if of_group else "all")
        g = g * xp.clamp(max_norm / (norm + 1e-6), max=1.0)
        exp_avg = 0.9 * exp_avg + 0.1 * g
        exp_avg_sq = 0.999 * exp_avg_sq + 0.001 * g * g
        return p - lr * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + 1e-8), exp_avg, exp_avg_sq


SHAPES = [(3,), (), (2, BLOCK + 77), (5, 7), (0,), (1, 4)]


def parameters(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    return [Parameter(normal(shape, i, dtype)) for i, shape in enumerate(SHAPES)]


def set_gradients(params: Sequence[Parameter], step: int) -> None:
    """Large ones and small ones; some have none in some steps."""
    for i, param in enumerate(params):
        scale = 10.0 ** ((step % 3) - 2)
        param.grad = (
            None if (i + step) % 5 == 0 else scale * normal(tuple(param.shape), 10 * step + i, param.dtype)
        )


def in_two_groups(params: Sequence[Parameter]) -> list[dict[str, Any]]:
    return [{"params": [*params[:2]], "lr": 0.2}, {"params": [*params[2:]]}]


def clipped(p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p - lr * g / g.norm(over="all"), m
