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

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch as xp
from torch import Tensor

import torchopt_course as optim
from recipes.common.pictures import COLORS, Figure, decorate, figure
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.statistics import loglog_slope

CLAIM = "Adagrad's steps die out, RMSprop's stay; without its correction Adam's first steps would be too long"
BETAS = (0.9, 0.999)
ALPHA, LR, NOISE = 0.99, 0.02, 0.5
COLUMNS = {
    "": "{optimizer}",
    "effective step\n~ t^": "{slope:.2f}",
    "after\n10 steps": "{tenth_step:.4f}",
    "at the\nend": "{last_step:.4f}",
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
    "RMSprop": lambda x: optim.RMSprop([x], lr=LR, alpha=ALPHA),
}


class AdamUncorrected(optim.ElementwiseOptimizer):
    """Adam, but for the correction of its two averages."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = BETAS, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @staticmethod
    def coefficients(lr: Any, betas: Any, eps: Any) -> Any:
        return {"lr": lr, "mix": 1 - betas[0], "fresh": 1 - betas[1], "eps": eps}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, mix: Any, fresh: Any, eps: Any) -> Any:
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        return p - lr * exp_avg / (xp.sqrt(exp_avg_sq) + eps), exp_avg, exp_avg_sq


@dataclass(frozen=True)
class Course:
    """How one optimizer followed the goal."""

    distance: list[float]
    """|x - c| after each step; median of the games."""
    steps: list[float]
    """Effective step η / √s after each step; likewise."""
    arrivals: list[int]
    """Steps from each jump until half of the distance is left for half of the games; at most all between."""


def follow(name: str, size: Size, seed: int) -> Course:
    """The goal is 0 at first, and then jumps between 1 and -1."""
    dice = torch.Generator().manual_seed(seed)
    x = torch.zeros(size.games, dtype=torch.float64, requires_grad=True)
    optimizer = FOLLOWERS[name](x)
    distance, steps, arrivals = [], [], []
    for jump in range(size.jumps):
        goal, arrival = (-1.0) ** jump, size.between
        start = float((x.detach() - goal).abs().median())
        for step in range(1, size.between + 1):
            x.grad = x.detach() - goal + NOISE * torch.randn(size.games, generator=dice, dtype=torch.float64)
            optimizer.step()
            left = float((x.detach() - goal).abs().median())
            state, group = optimizer.state[x], optimizer.param_groups[0]
            squares = state["sum"] if "sum" in state else state["square_avg"]
            distance.append(left)
            steps.append(float((group["lr"] / squares.sqrt()).median()))
            if left <= start / 2 and arrival == size.between:
                arrival = step
        arrivals.append(arrival)
    return Course(distance, steps, arrivals)


def first_steps(corrected: bool, count: int = 100) -> list[float]:
    """Lengths of Adam's first steps under a constant gradient, in units of the learning rate."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer: Any = optim.Adam([x], lr=1.0, betas=BETAS) if corrected else AdamUncorrected([x], lr=1.0)
    lengths, before = [], 0.0
    for _ in range(count):
        x.grad = torch.ones_like(x)
        optimizer.step()
        lengths.append(before - x.item())
        before = x.item()
    return lengths


def theory(corrected: bool, count: int = 100) -> list[float]:
    """What they should be: 1, and (1 - β₁ᵗ) / √(1 - β₂ᵗ)."""
    t = torch.arange(1, count + 1, dtype=torch.float64)
    lengths: Tensor = torch.ones_like(t) if corrected else (1 - BETAS[0] ** t) / (1 - BETAS[1] ** t).sqrt()
    return [float(length) for length in lengths]


def slope(steps: Sequence[float]) -> float:
    """The power of t that steps go with, the first tenth left out."""
    first = len(steps) // 10
    t = [round(first * 10 ** (i / 30)) for i in range(31)]
    return loglog_slope(t, [steps[one - 1] for one in t])


def judge(courses: dict[str, Course], slopes: dict[str, float], adam: dict[bool, list[float]]) -> Verdict:
    """The criterion of the docstring above; `slopes` are those of a goal that stays."""
    longer = {name: course.arrivals[-1] / course.arrivals[1] for name, course in courses.items()}
    error = max(
        abs(measured / expected - 1)
        for corrected, lengths in adam.items()
        for measured, expected in zip(lengths, theory(corrected), strict=True)
    )
    return Verdict(
        CLAIM,
        abs(slopes["Adagrad"] + 0.5) <= 0.1
        and abs(slopes["RMSprop"]) <= 0.1
        and longer["Adagrad"] >= 3
        and longer["RMSprop"] < 1.5
        and error < 0.01,
        f"while the goal stayed Adagrad's effective step went like t^{slopes['Adagrad']:.2f}, RMSprop's like "
        f"t^{slopes['RMSprop']:.2f}; "
        f"after its last jump Adagrad took {longer['Adagrad']:.1f} times as many steps to half the way as "
        f"after the first from one goal to the other, RMSprop {longer['RMSprop']:.1f} times; "
        f"Adam's first step was "
        f"{adam[True][0]:.2f} rates long, without the correction {adam[False][0]:.2f}, and all hundred were "
        f"those of theory within {error:.1%}",
    )


def draw_followers(courses: dict[str, Course], size: Size) -> Figure:
    """Effective steps, and the distance to the goal."""
    picture = figure(11, 4.4)
    left, right = picture.subplots(1, 2)
    for name, course in courses.items():
        t = range(1, len(course.steps) + 1)
        left.loglog(t, course.steps, color=COLORS[name], linewidth=2, label=name)
        right.plot(t, course.distance, color=COLORS[name], linewidth=1.4, label=name)
    last = courses["Adagrad"].steps
    left.loglog(t, [last[-1] * (one / len(last)) ** -0.5 for one in t], ":", color="0.4", label="t^-0.5")
    decorate(left, "step t", "effective step η / √s", "Adagrad's die out, RMSprop's stay")
    decorate(right, "step t", "distance to the goal", f"The goal jumps every {size.between:,} steps")
    right.set_ylim(0, 2.7)  # room for the legend
    left.legend()
    right.legend(loc="upper right")
    return picture


def draw_adam(adam: dict[bool, list[float]]) -> Figure:
    """Lengths of the first steps."""
    picture = figure(8, 4.4)
    axes = picture.subplots()
    looks = {True: ("Adam", COLORS["Adam"]), False: ("without the correction", "#56B4E9")}
    for corrected, (name, color) in looks.items():
        t = range(1, len(adam[corrected]) + 1)
        axes.plot(t, theory(corrected), color=color, alpha=0.5, linewidth=3)
        axes.plot(t, adam[corrected], ".", color=color, label=name)
    axes.set_ylim(bottom=0)
    title = "The first steps under a constant gradient; lines: theory, dots: measured"
    decorate(axes, "step t", "length of the step / learning rate", title)
    axes.legend()
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Follow, step, draw, judge."""
    courses = {name: follow(name, size, seed) for name in FOLLOWERS}
    calm = Size(1, size.jumps * size.between, size.games)
    slopes = {name: slope(follow(name, calm, seed).steps) for name in FOLLOWERS}
    adam = {corrected: first_steps(corrected) for corrected in (True, False)}
    kept = range(0, size.jumps * size.between, max(1, size.between // 100))
    for name, course in courses.items():
        for tag, values, words in (
            ("effective_step", course.steps, "η / √s; median of the games."),
            ("distance", course.distance, "From the goal; median of the games."),
        ):
            report.curve(f"{tag}/{name}", words, [values[i] for i in kept], [i + 1 for i in kept])
    for corrected, lengths in adam.items():
        tag = f"first_steps/{'Adam' if corrected else 'uncorrected'}"
        report.curve(tag, "Length under a constant gradient, in learning rates.", lengths)
    report.picture("steps", draw_followers(courses, size))
    report.picture("bias_correction", draw_adam(adam))
    rows = [
        {
            "optimizer": name,
            "slope": slopes[name],
            "tenth_step": c.steps[9],
            "last_step": c.steps[-1],
            "first_arrival": c.arrivals[1],
            "last_arrival": c.arrivals[-1],
        }
        for name, c in courses.items()
    ]
    report.finish(table_of(rows, COLUMNS), rows, judge(courses, slopes, adam))


if __name__ == "__main__":
    main(__doc__, SIZES, run)
