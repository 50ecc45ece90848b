"""Pictures of games in rounds: where each optimizer stands, what it has paid, and why it goes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.common.pictures import COLORS, Figure, decorate, figure


@dataclass(frozen=True)
class Course:
    """How one optimizer fared in several games, at the rounds that are kept for the curves."""

    rounds: list[int]
    x: Tensor
    """Where it stood after each kept round, kept rounds x games."""
    regret: Tensor
    """Paid so far beyond what the best point would have paid, for each round on average; same shape."""


def draw_games(title: str, courses: Mapping[str, Course], worst: float) -> Figure:
    """x and average regret over the rounds; of many games the median and the middle 80 %."""
    picture = figure(11, 4.6)
    picture.suptitle(title)
    left, right = picture.subplots(1, 2)
    start = 10  # before that one round decides everything
    for name, course in courses.items():
        for axes, values in ((left, course.x), (right, course.regret)):
            low, middle, high = values.quantile(torch.tensor([0.1, 0.5, 0.9]).double(), dim=1).numpy()
            axes.plot(course.rounds, middle, color=COLORS[name], label=name, linewidth=2)
            if values.shape[1] > 1:
                axes.fill_between(course.rounds, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
            axes.set(xscale="log", xlim=(start, course.rounds[-1]))
    decorate(left, "round t", "x", "Where it stands")
    decorate(right, "round t", "average regret", "What it paid beyond the best point, per round")
    for axes, height, words in (
        (left, 1, "worst\npoint"),
        (left, -1, "best\npoint"),
        (right, worst, f"worst point\n{worst:.3g}"),
        (right, 0, "best point\n0"),
    ):
        axes.axhline(height, color="0.5", linestyle=":", linewidth=1.2)
        # Beside the axes, where no curve runs.
        axes.text(1.02, height, words, transform=axes.get_yaxis_transform(), va="center")
    left.set_ylim(-1.3, 1.3)
    right.set_ylim(-worst / 3, 2.5 * worst)
    right.legend(loc="upper right")
    return picture


def draw_memory(
    fine: Sequence[float],
    drifts: Mapping[str, Sequence[float]],
    beta2s: Sequence[float],
    ends: Mapping[str, Sequence[float]],
    when: str,
) -> Figure:
    """Theory and measurement against β₂: the drift of one period, and the point where x ends."""
    picture = figure(11, 4.6)
    picture.suptitle("Forgetting is the reason: in Theorem 1's game a longer memory of squares heals Adam")
    left, right = picture.subplots(1, 2)
    for name, drift in drifts.items():
        color = COLORS[name]
        left.plot(fine, drift, color=color, label=name, linewidth=2)
        goal = [1 if value > 0 else -1 for value in drift]
        right.plot(fine, goal, color=color, alpha=0.5, label=f"{name}, where the drift leads")
        right.plot(beta2s, ends[name], "o", color=color, label=f"{name}, {when}")
    left.axhline(0, color="0.5", linestyle=":", linewidth=1.2)
    decorate(left, "β₂", "drift in one period / learning rate", "Above zero: towards the worst point")
    decorate(right, "β₂", "x", "Where it ends")
    right.set(ylim=(-1.3, 2.6), yticks=(-1, 0, 1))
    left.legend()
    right.legend(loc="upper right")
    return picture
