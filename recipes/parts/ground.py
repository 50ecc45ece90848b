"""Functions of two numbers to walk on, and what a walk is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Landscape:
    """A function of two numbers, where to start on it, and what plain gradient descent suffers there."""

    height: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    minima: Sequence[tuple[float, float]]
    view: tuple[float, float, float, float]
    """Left, right, bottom, top of the picture."""
    failure: str
    lowest: float = 0.0


LANDSCAPES = {
    "ravine": Landscape(
        lambda x, y: (x**2 + 40 * y**2) / 2,
        (-9.0, 1.5), [(0, 0)], (-10, 3, -3.4, 2.4),
        "zigzag: the steep walls forbid\nthe rate that the flat floor needs",
    ),
    "saddle": Landscape(
        lambda x, y: 5 * x**2 + y**4 / 4 - y**2 / 2,
        (-1.0, 1e-4), [(0, -1), (0, 1)], (-1.2, 1.2, -0.6, 1.4),
        "stall: next to the saddle there is\nhardly a slope to leave it by",
        lowest=-0.25,
    ),
    "plateau": Landscape(
        lambda x, y: 1 - torch.exp(-(x**2 + 2 * y**2) / 2),
        (-3.0, 1.4), [(0, 0)], (-4, 2, -2, 2),
        "standstill:\nno slope, no step",
    ),
    "Rosenbrock": Landscape(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        (-1.2, 1.0), [(1, 1)], (-1.8, 1.6, -0.8, 2.2),
        "crawl: the narrow valley bends,\nand its floor is almost flat",
    ),
    "Beale": Landscape(
        lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        (1.0, 1.5), [(3, 0.5)], (-0.5, 4, -1.5, 2),
        "cliff: a rate that survives the wall\nis too small behind it",
    ),
    "Himmelblau": Landscape(
        lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
        (-0.2, -1.2),
        [(3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)],
        (-5.5, 5.5, -5.5, 5.5),
        "blindness: it finds the minimum that\nits start leads to, of four",
    ),
}  # fmt: skip


def turned(landscape: Landscape, degrees: float, view: tuple[float, float, float, float]) -> Landscape:
    """The same landscape, turned about the origin, start and all: to gradient descent nothing has changed."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def turn(x: float, y: float) -> tuple[float, float]:
        return cos * x - sin * y, sin * x + cos * y

    return replace(
        landscape,
        height=lambda x, y: landscape.height(cos * x + sin * y, cos * y - sin * x),
        start=turn(*landscape.start),
        minima=[turn(*place) for place in landscape.minima],
        view=view,
    )


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
