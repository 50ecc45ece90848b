"""Shampoo as a rule for whole tensors, and by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import TensorOptimizer

STEPS = 60


def power(matrix: Any, exponent: float) -> Any:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.unsqueeze(-2) ** exponent @ vectors.mT


class Shampoo(TensorOptimizer):
    """Gupta et al., 2018; the steps are counted in an integer, the largest gradient is kept as one number."""

    states = ("left", "right", "largest", "count")

    def __init__(self, params: Any, lr: float = 0.1, eps: float = 1e-4, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, **options})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        if name == "count":
            return torch.zeros((), dtype=torch.int64)
        if name == "largest":
            return torch.zeros(1, dtype=torch.float32)
        if param.dim() < 2:
            return None
        size = param.shape[0 if name == "left" else 1]
        return group["eps"] * torch.eye(size, dtype=torch.float64)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, left: Any, right: Any, largest: Any, count: Any, lr: Any) -> Any:
        count += 1  # what it gets is its own
        largest = torch.maximum(largest, g.abs().max())
        if left is None:
            return p - lr * g, None, None, largest, count
        gradient = g.double()
        left += gradient @ gradient.mT
        right += gradient.mT @ gradient
        update = power(left, -1 / 4) @ gradient @ power(right, -1 / 4)
        return p - lr * update.to(p.dtype), left, right, largest, count


def shampoo_by_hand(
    values: list[Tensor], gradients: Callable[[int, Tensor], Tensor], lr: float
) -> list[Tensor]:
    """The same without any of our classes; powers by singular values instead of eigenvalues."""

    def root(matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        return u @ torch.diag(s**-0.25) @ vh

    end = []
    for value in values:
        w = value.clone()
        if w.dim() == 2:
            left, right = 1e-4 * torch.eye(len(w)).to(w), 1e-4 * torch.eye(w.shape[1]).to(w)
        for step in range(STEPS):
            g = gradients(step, w)
            if w.dim() < 2:
                w -= lr * g
                continue
            left += g @ g.T
            right += g.T @ g
            w -= lr * root(left) @ g @ root(right)
        end.append(w)
    return end


def parameters(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), (4, 3), (2, 6)]
    return [
        Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def gradient(step: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + like.numel())
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def run(optimizer: torch.optim.Optimizer, steps: range, sign: float = 1.0) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = sign * gradient(step, param)
        optimizer.step()
