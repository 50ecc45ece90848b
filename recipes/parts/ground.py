"""Functions of two numbers to walk on, and how an optimizer walks on them."""

from __future__ import annotations

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
# From a start and in a frame that suit a picture, and with what plain gradient descent suffers there.
LANDSCAPES = {
    "ravine": Landscape(
        "Ravine", lambda x, y: (x**2 + 40 * y**2) / 2,
        (-9.0, 1.5), (-10, 3, -3.4, 2.4), [(0, 0)],
        "zigzag: the steep walls forbid\nthe rate that the flat floor needs",
    ),
    "saddle": replace(
        KNOWN["Saddle"], start=(-1.0, 1e-4), view=(-1.2, 1.2, -0.6, 1.4),
        lesson="stall: next to the saddle there is\nhardly a slope to leave it by",
    ),
    "plateau": replace(
        KNOWN["Plateau"], start=(-3.0, 1.4), view=(-4, 2, -2, 2), lesson="standstill:\nno slope, no step",
    ),
    "Rosenbrock": replace(
        KNOWN["Rosenbrock"], view=(-1.8, 1.6, -0.8, 2.2),
        lesson="crawl: the narrow valley bends,\nand its floor is almost flat",
    ),
    "Beale": replace(
        KNOWN["Beale"], view=(-0.5, 4, -1.5, 2),
        lesson="cliff: a rate that survives the wall\nis too small behind it",
    ),
    "Himmelblau": replace(
        KNOWN["Himmelblau"], view=(-5.5, 5.5, -5.5, 5.5),
        lesson="blindness: it finds the minimum that\nits start leads to, of four",
    ),
}  # fmt: skip


def turned(landscape: Landscape, degrees: float, view: tuple[float, float, float, float]) -> Landscape:
    """The same landscape, turned about the origin, start and all: to gradient descent nothing has changed."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def turn(x: float, y: float) -> tuple[float, float]:
        return cos * x - sin * y, sin * x + cos * y

    return replace(
        landscape,
        name=f"{landscape.name}, turned",
        height=lambda x, y: landscape.height(cos * x + sin * y, cos * y - sin * x),
        start=turn(*landscape.start),
        minima=[turn(*place) for place in landscape.minima],
        view=view,
        lesson="the same rates: what scales each\ncoordinate by itself notices the turn",
    )


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


def symptoms(walk: Walk) -> tuple[float, float]:
    """Share of steps that turn by more than 90°, and the longest step over the shortest, up to the target."""
    last = min(walk.steps_to_target, len(walk.path) - 1)
    moves = walk.path[: int(last) + 1].diff(dim=0)
    lengths = moves.norm(dim=1)
    back = (moves[1:] * moves[:-1]).sum(dim=1) < 0
    return back.double().mean().item(), (lengths.max() / lengths.min()).item()


def minima_found(attempts: Sequence[Walk], landscape: Landscape) -> int:
    """At how many of the minima some learning rate ended."""
    ends = torch.stack([attempt.path[-1] for attempt in attempts])
    minima = torch.tensor(landscape.minima, dtype=torch.float64)
    return int((torch.cdist(minima, ends.nan_to_num(math.inf)) < 0.1).any(dim=1).sum())
