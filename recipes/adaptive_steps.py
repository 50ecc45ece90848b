"""How long are the steps of Adagrad, RMSprop, and Adam at first? `python recipes/adaptive_steps.py`.

    Adagrad   s ← s + g²                x ← x - η g / √s
    RMSprop   s ← α s + (1 - α) g²      x ← x - η g / √s
    Adam      m and s are such averages, begun at zero, and so too small by 1 - β₁ᵗ and 1 - β₂ᵗ

Adagrad's sum only grows, so its steps die out. RMSprop forgets old gradients, and its steps stay. The game: a
noisy slope, g = x - c + noise, where the goal c jumps now and then. Whoever has stopped does not follow.

Adam divides its averages by what they are too small by. Left out, with β₁ = 0.9 and β₂ = 0.999, the first
step would be (1 - β₁) / √(1 - β₂) = 3.2 times as long as the learning rate; AdamUncorrected below is that.

The verdict, written before the run. The claim is borne out if

1. while the goal stays, Adagrad's effective step η / √s falls like t to the power of -0.5 ± 0.1 and RMSprop's
   stays (0 ± 0.1); with a goal that jumps Adagrad's falls faster, for the gradients grow while it lags,
2. after the last jump Adagrad takes at least three times as many steps to the goal as after the first,
   RMSprop less than one and a half times as many, and
3. the lengths of Adam's first hundred steps under a constant gradient, with and without the correction, are
   those of theory within 1 %.
"""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor

import torchopt_course as optim
from recipes.common.pictures import COLORS, Figure, decorate, panels
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.statistics import loglog_slope

CLAIM = "Adagrad's steps die out, RMSprop's stay; without its correction Adam's first steps would be too long"
BETAS = (0.9, 0.999)
LR, NOISE = 0.02, 0.5
COLUMNS = {
    "": "{optimizer}",
    "effective step\n~ t^": "{slope:.2f}",
    "steps to half the way,\nfirst jump": "{first_arrival}",
    "last\njump": "{last_arrival}",
}


@dataclass(frozen=True)
class Size:
    jumps: int
    between: int
    """Steps from one jump to the next."""
    games: int
    """Played at once, with other noise."""


SIZES = {"smoke": Size(3, 200, 8), "gallery": Size(8, 1000, 100), "full": Size(20, 5000, 1000)}

# Adagrad's first steps are so long as its rate; RMSprop's are, whenever.
FOLLOWERS: dict[str, Any] = {
    "Adagrad": lambda x: optim.Adagrad([x], lr=10 * LR),
    "RMSprop": lambda x: optim.RMSprop([x], lr=LR, alpha=0.99),
}


class AdamUncorrected(optim.Adam):
    """Adam without the correction: as it is after infinitely many steps, when 1 - βᵗ has become 1."""

    @staticmethod
    def coefficients(lr: Any, betas: Any, eps: Any) -> Any:  # type: ignore[override]
        return optim.Adam.coefficients(math.inf, lr, betas, eps, 0, False)


@dataclass(frozen=True)
class Course:
    """How one optimizer followed the goal: medians of the games, jumps x steps between."""

    distance: Tensor
    """|x - c| before each step."""
    steps: Tensor
    """Effective step η / √s."""

    @property
    def arrivals(self) -> list[int]:
        """Steps from each jump until half of the distance is left; all between if more is left."""
        there = self.distance <= self.distance[:, :1] / 2
        return [int(row.int().argmax()) if row.any() else len(row) for row in there]

    @property
    def slope(self) -> float:
        """The power of t that steps go with, the first tenth left out."""
        steps = self.steps.flatten().tolist()
        t = [round(len(steps) // 10 * 10 ** (i / 30)) for i in range(31)]
        return loglog_slope(t, [steps[one - 1] for one in t])


def follow(name: str, size: Size, seed: int) -> Course:
    """x begins at 0, the goal at 1; then it jumps to -1 and back."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.zeros(size.games, dtype=torch.float64, requires_grad=True)
    optimizer = FOLLOWERS[name](x)
    distance, steps = torch.zeros(2, size.jumps, size.between, dtype=torch.float64)
    for jump, step in product(range(size.jumps), range(size.between)):
        missing = x.detach() - (-1) ** jump
        x.grad = missing + NOISE * torch.randn(size.games, generator=dice, dtype=torch.float64)
        optimizer.step()
        squares = optimizer.state[x]["sum" if name == "Adagrad" else "square_avg"]
        distance[jump, step] = missing.abs().median()
        steps[jump, step] = (optimizer.param_groups[0]["lr"] / squares.sqrt()).median()
    return Course(distance, steps)


def first_steps(corrected: bool, count: int = 100) -> list[float]:
    """Lengths of Adam's first steps under a constant gradient, in units of the learning rate."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = (optim.Adam if corrected else AdamUncorrected)([x], lr=1.0, betas=BETAS)
    places = [0.0]
    for _ in range(count):
        x.grad = torch.ones_like(x)
        optimizer.step()
        places.append(x.item())
    return [before - after for before, after in pairwise(places)]


def theory(corrected: bool, count: int = 100) -> list[float]:
    """What they should be: 1, and (1 - β₁ᵗ) / √(1 - β₂ᵗ)."""
    if corrected:
        return [1.0] * count
    return [(1 - BETAS[0] ** t) / math.sqrt(1 - BETAS[1] ** t) for t in range(1, count + 1)]


def judge(rows: list[dict[str, Any]], adam: dict[bool, list[float]]) -> Verdict:
    """The criterion of the docstring above."""
    adagrad, rmsprop = rows
    longer, as_long = (row["last_arrival"] / row["first_arrival"] for row in rows)
    error = max(
        abs(measured / expected - 1)
        for corrected, lengths in adam.items()
        for measured, expected in zip(lengths, theory(corrected), strict=True)
    )
    dies_out = abs(adagrad["slope"] + 0.5) <= 0.1 and longer >= 3
    stays = abs(rmsprop["slope"]) <= 0.1 and as_long < 1.5
    return Verdict(
        CLAIM,
        dies_out and stays and error < 0.01,
        f"while the goal stayed the effective step went like t^{adagrad['slope']:.2f} (Adagrad) and "
        f"t^{rmsprop['slope']:.2f} (RMSprop); after the last jump they took {longer:.1f} and {as_long:.1f} "
        f"times as many steps to half the way as after the first; Adam's first step was {adam[True][0]:.2f} "
        f"rates long, without the correction {adam[False][0]:.2f}, and all hundred were theory's within "
        f"{error:.1%}",
    )


def draw_followers(courses: dict[str, Course]) -> Figure:
    """Effective steps, and the distance to the goal."""
    picture, (left, right) = panels(11, 4.4, columns=2)
    for name, course in courses.items():
        t = torch.arange(1, course.steps.numel() + 1)
        left.loglog(t, course.steps.flatten(), color=COLORS[name], linewidth=2, label=name)
        right.plot(t, course.distance.flatten(), color=COLORS[name], linewidth=1.4, label=name)
    last = courses["Adagrad"].steps[-1, -1]
    left.loglog(t, last * (t / len(t)) ** -0.5, ":", color="0.4", label="t^-0.5")
    decorate(left, "step t", "effective step η / √s", "Adagrad's die out, RMSprop's stay")
    between = courses["Adagrad"].steps.shape[1]
    decorate(right, "step t", "distance to the goal", f"The goal jumps every {between:,} steps")
    right.set_ylim(0, 2.7)  # room for the legend
    left.legend()
    right.legend(loc="upper right")
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Follow, step, draw, judge."""
    courses = {name: follow(name, size, seed) for name in FOLLOWERS}
    calm = Size(1, size.jumps * size.between, size.games)
    adam = {corrected: first_steps(corrected) for corrected in (True, False)}
    kept = torch.arange(0, size.jumps * size.between, max(1, size.between // 100))
    for name, course in courses.items():
        for tag, values in ("effective_step", course.steps), ("distance", course.distance):
            words = "η / √s, and the distance from the goal before the step; medians of the games."
            report.curve(f"{tag}/{name}", words, values.flatten()[kept].tolist(), (kept + 1).tolist())
    for corrected, lengths in adam.items():
        tag = f"first_steps/{'Adam' if corrected else 'uncorrected'}"
        report.curve(tag, "Length under a constant gradient, in learning rates.", lengths)
    report.picture("steps", draw_followers(courses))
    rows = [
        {
            "optimizer": name,
            "slope": follow(name, calm, seed).slope,
            "first_arrival": course.arrivals[1],
            "last_arrival": course.arrivals[-1],
        }
        for name, course in courses.items()
    ]
    report.finish(table_of(rows, COLUMNS), rows, judge(rows, adam))


if __name__ == "__main__":
    main(__doc__, SIZES, run)
