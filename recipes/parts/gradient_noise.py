"""The noise of a mini-batch's gradient: what it is by theory, and what it is when batches are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from recipes.common.data import Data
from recipes.parts.statistics import loglog_slope

Loss = Callable[[Tensor, Tensor], Tensor]


def population(
    model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = F.cross_entropy
) -> tuple[Tensor, float]:
    """∇f, the gradient of all rows, and σ² = mean |g_i - ∇f|², the variance of a single row's gradient."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss_of_row(weights: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (row[None],)), target[None])

    total, squares = torch.zeros(()), 0.0
    for some, their in zip(inputs.split(256), targets.split(256), strict=True):  # all at once may not fit
        gradients = flat(
            vmap(grad(loss_of_row), in_dims=(None, 0, 0))(weights, some, their).values(), rows=len(some)
        )
        total = total + gradients.sum(dim=0)
        squares += gradients.square().sum().item()
    mean = total / len(inputs)
    return mean, squares / len(inputs) - mean.square().sum().item()


def measured_variance(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    mean: Tensor,
    batch_size: int,
    draws: int,
    replacement: bool,
    generator: torch.Generator,
    loss: Loss = F.cross_entropy,
) -> float:
    """E|g_B - ∇f|², estimated from the gradients of that many batches."""
    total = 0.0
    for _ in range(draws):
        if replacement:
            rows = torch.randint(len(inputs), (batch_size,), generator=generator)
        else:
            rows = torch.randperm(len(inputs), generator=generator)[:batch_size]
        gradient = torch.autograd.grad(loss(model(inputs[rows]), targets[rows]), list(model.parameters()))
        total += (flat(gradient) - mean).square().sum().item()
    return total / draws


def flat(gradients: Any, rows: int | None = None) -> Tensor:
    """All weights' gradients end to end, one line for each row; in float64, so that sums stay exact."""
    shape = (-1,) if rows is None else (rows, -1)
    return torch.cat([gradient.reshape(shape).double() for gradient in gradients], dim=-1)


def predicted_variance(variance: float, batch_size: int, rows: int, *, replacement: bool) -> float:
    """σ²/B, with the correction for a finite population if no row is drawn twice."""
    return variance / batch_size * (1.0 if replacement else (rows - batch_size) / (rows - 1))


@dataclass(frozen=True)
class Noise:
    """The gradient's variance against the batch size, at one place."""

    place: str
    batch_sizes: list[int]
    with_replacement: list[float]
    without_replacement: list[float]
    variance: float
    """σ², of single rows."""

    @property
    def slope(self) -> float:
        return loglog_slope(self.batch_sizes, self.with_replacement)


def noise(place: str, model: nn.Module, data: Data, draws: int, seed: int) -> Noise:
    """Measure it for 1, 2, 4, ... rows."""
    inputs, targets = data.train_inputs, data.train_targets
    generator = torch.Generator().manual_seed(seed)
    mean, variance = population(model, inputs, targets)
    sizes = [2**power for power in range(int(math.log2(len(inputs))) + 1)]
    with_, without = (
        [
            measured_variance(model, inputs, targets, mean, size, draws, replacement, generator)
            for size in sizes
        ]
        for replacement in (True, False)
    )
    return Noise(place, sizes, with_, without, variance)
