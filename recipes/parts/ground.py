"""Functions of two numbers to walk on, and what a walk is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from torchopt_course.playground import landscapes as playground


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


def known(
    name: str, start: tuple[float, float], view: tuple[float, float, float, float], failure: str
) -> Landscape:
    """One of the playground's, from a start and in a frame that suit a picture."""
    (one,) = (one for one in playground.LANDSCAPES if one.name == name)
    return Landscape(one.height, start, one.minima, view, failure, one.lowest)


LANDSCAPES = {
    "ravine": Landscape(
        lambda x, y: (x**2 + 40 * y**2) / 2,
        (-9.0, 1.5), [(0, 0)], (-10, 3, -3.4, 2.4),
        "zigzag: the steep walls forbid\nthe rate that the flat floor needs",
    ),
    "saddle": known(
        "Saddle", (-1.0, 1e-4), (-1.2, 1.2, -0.6, 1.4),
        "stall: next to the saddle there is\nhardly a slope to leave it by",
    ),
    "plateau": known("Plateau", (-3.0, 1.4), (-4, 2, -2, 2), "standstill:\nno slope, no step"),
    "Rosenbrock": known(
        "Rosenbrock", (-1.2, 1.0), (-1.8, 1.6, -0.8, 2.2),
        "crawl: the narrow valley bends,\nand its floor is almost flat",
    ),
    "Beale": known(
        "Beale", (1.0, 1.5), (-0.5, 4, -1.5, 2),
        "cliff: a rate that survives the wall\nis too small behind it",
    ),
    "Himmelblau": known(
        "Himmelblau", (-0.2, -1.2), (-5.5, 5.5, -5.5, 5.5),
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
