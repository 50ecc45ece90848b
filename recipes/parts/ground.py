"""Functions of two numbers to walk on, and how an optimizer walks on them."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

import torchopt_course as optim
from torchopt_course.playground.landscapes import LANDSCAPES as PLAYGROUND
from torchopt_course.playground.landscapes import Landscape

KNOWN = {one.name: one for one in PLAYGROUND}
# Harder starts than the playground's: farther from the ridge, and on the plateau.
STARTS = {"Ravine": (-9.0, 1.5), "Saddle": (-1.0, 1e-4), "Plateau": (-3.0, 1.4)}
NAMES = ("Ravine", "Saddle", "Plateau", "Rosenbrock", "Beale", "Himmelblau")


def ravine(degrees: float) -> Landscape:
    """Turned about the minimum, start and all: to gradient descent nothing has changed."""
    known = KNOWN["Ravine"]
    condition, turn = torch.tensor([known.parameters["condition"][-1], degrees], dtype=torch.float64)
    start = complex(*STARTS["Ravine"]) * cmath.rect(1, math.radians(degrees))
    height = partial(known.height, condition=condition, turn=turn)
    return replace(known, height=height, start=(start.real, start.imag))


LANDSCAPES = {name: replace(KNOWN[name], start=STARTS.get(name, KNOWN[name].start)) for name in NAMES}
LANDSCAPES["Ravine"] = ravine(0)
TURNED = replace(
    ravine(30), name="Ravine, turned", view=(-10, 4, -7, 4),
    lesson="The same rates: what scales each coordinate by itself notices the turn.",
)  # fmt: skip


MakeOptimizer: TypeAlias = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "Gradient descent": optim.SGD,
    "Momentum": partial(optim.Momentum, momentum=0.9),
    "Nesterov": partial(optim.Momentum, momentum=0.9, nesterov=True),
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "Adam": optim.Adam,
}
TARGET = 1e-3


@dataclass(frozen=True)
class Walk:
    """One optimizer's way through one landscape."""

    lr: float
    path: Tensor
    """(steps + 1) x 2, the start included."""
    heights: Tensor
    """What is left above the lowest point, for each row of `path`."""
    steps_to_target: float
    """Steps until a thousandth of the height at the start was left; infinite if it never was."""
    inside: bool = True
    """It never left the picture."""


def walk(landscape: Landscape, make_optimizer: MakeOptimizer, lrs: Sequence[float], steps: int) -> list[Walk]:
    """All learning rates at once, one parameter group for each."""
    points = [torch.tensor(landscape.start, dtype=torch.float64, requires_grad=True) for _ in lrs]
    groups = [{"params": [point], "lr": lr} for point, lr in zip(points, lrs, strict=True)]
    optimizer = make_optimizer(groups)
    positions = [torch.stack(points).detach()]
    for _ in range(steps):
        optimizer.zero_grad()
        # The walks do not touch: the gradient of the sum holds the gradient of each.
        landscape.height(*torch.stack(points).T).sum().backward()
        optimizer.step()
        positions.append(torch.stack(points).detach())
    paths = torch.stack(positions, dim=1)
    x, y = paths.unbind(dim=-1)
    heights = landscape.height(x, y) - landscape.lowest
    left, right, bottom, top = landscape.view
    inside = ((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).all(dim=1)
    return [
        Walk(lr, path, height, steps_until(height <= TARGET * height[0]) if stayed else math.inf, stayed)
        for lr, path, height, stayed in zip(lrs, paths, heights, inside.tolist(), strict=True)
    ]


def steps_until(reached: Tensor) -> float:
    """The first step from which on the target stays reached: to fly past the minimum does not count."""
    missed = (~reached).nonzero()
    first = int(missed[-1]) + 1 if len(missed) else 0
    return first if first < len(reached) else math.inf


def quality(walk: Walk) -> tuple[float, bool, float]:
    """Fewest steps first; among those that miss the target, those that stay in sight, then the lowest end."""
    end = walk.heights[-1].item()
    return walk.steps_to_target, not walk.inside, end if math.isfinite(end) else math.inf  # NaN is the worst
