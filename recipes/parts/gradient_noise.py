"""The noise of a mini-batch's gradient: what it is by theory, and what it is when batches are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.common.data import Data
from recipes.parts.statistics import loglog_slope

Loss = Callable[[Tensor, Tensor], Tensor]


def gradient(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """∇f of these rows: all weights' end to end, in float64, so that sums stay exact."""
    gradients = torch.autograd.grad(loss(model(inputs), targets), list(model.parameters()))
    return torch.cat([one.flatten().double() for one in gradients])


def population(
    model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = F.cross_entropy
) -> tuple[Tensor, float]:
    """∇f, the gradient of all rows, and σ² = mean |g_i - ∇f|², the variance of a single row's gradient."""
    total, squares = torch.zeros(()), 0.0
    for row, target in zip(inputs.split(1), targets.split(1), strict=True):
        of_row = gradient(model, row, target, loss)
        total = total + of_row
        squares += of_row.square().sum().item()
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
        total += (gradient(model, inputs[rows], targets[rows], loss) - mean).square().sum().item()
    return total / draws


def predicted_variance(variance: float, batch_size: int, rows: int, *, replacement: bool) -> float:
    """σ²/B, with the correction for a finite population if no row is drawn twice."""
    return variance / batch_size * (1.0 if replacement else (rows - batch_size) / (rows - 1))


@dataclass(frozen=True)
class Noise:
    """The gradient's variance against the batch size: by replacement of the rows that are drawn, or not."""

    batch_sizes: list[int]
    measured: dict[bool, list[float]]
    predicted: dict[bool, list[float]]

    @property
    def slope(self) -> float:
        """Of log variance against log batch size, drawn with replacement."""
        return loglog_slope(self.batch_sizes, self.measured[True])


def noise(model: nn.Module, data: Data, draws: int, seed: int) -> Noise:
    """Of 1, 2, 4, ... rows."""
    inputs, targets = data.train_inputs, data.train_targets
    generator = torch.Generator().manual_seed(seed)
    mean, variance = population(model, inputs, targets)
    found = Noise([2**power for power in range(int(math.log2(len(inputs))) + 1)], {}, {})
    for replacement in (True, False):
        found.measured[replacement] = [
            measured_variance(model, inputs, targets, mean, size, draws, replacement, generator)
            for size in found.batch_sizes
        ]
        found.predicted[replacement] = [
            predicted_variance(variance, size, len(inputs), replacement=replacement)
            for size in found.batch_sizes
        ]
    return found
