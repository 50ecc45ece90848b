"""The pictures of `recipes/sparse_features.py`: accuracy, weights against frequency, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recipes.common.pictures import COLORS, decorate, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recipes.sparse_features import Contender

LOOKS = {**COLORS, "SparseAdam": COLORS["AMSGrad"]}


def accuracy_picture(contenders: Sequence[Contender], conditions: Sequence[str]) -> Figure:
    """A panel for each condition; filled: rare rows, hollow: the others; bars are standard errors."""
    picture = figure(10, 4)
    names = [c.optimizer for c in contenders if c.condition == conditions[0]]
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        for i, c in enumerate(c for c in contenders if c.condition == condition):
            for name, hollow, shift in (("rare_accuracy", False, -0.12), ("common_accuracy", True, 0.12)):
                color = LOOKS[c.optimizer]
                axes.errorbar(
                    i + shift, 100 * c.mean(name), 100 * c.spread(name) / len(c.outcomes) ** 0.5,
                    color=color, marker="o", markerfacecolor="white" if hollow else color, capsize=3,
                )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.margins(y=0.15)
        decorate(axes, "", "test accuracy in %" if condition == conditions[0] else "", condition)
    picture.suptitle(
        "Filled: rare rows; hollow: the others; bars: one standard error over the seeds", fontsize=11
    )
    return picture


def weights_picture(contenders: Sequence[Contender], counts: Tensor) -> Figure:
    """How far weights have moved, and what a gradient is multiplied with, by their features' frequency."""
    picture = figure(10, 4.5)
    movement, effective = picture.subplots(1, 2)
    for c in contenders:
        color, first = LOOKS[c.optimizer], c.outcomes[0]
        if first.movement:
            x, y = binned(counts, torch.tensor(first.movement))
            label = f"{c.optimizer}, ~ count^{c.slope:.2f}"
            movement.loglog(x, y, color=color, marker="o", markersize=4, label=label)
        if first.effective_steps:
            effective.loglog(
                *binned(counts, torch.tensor(first.effective_steps)), color=color, marker="o", markersize=4,
                label=c.optimizer,
            )  # fmt: skip
            if c.optimizer == "Adagrad":
                x, y = binned(counts, torch.tensor(first.effective_steps))
                effective.loglog(
                    x,
                    [y[-1] * (n / x[-1]) ** -0.5 for n in x],
                    color=color,
                    linestyle=":",
                    label="count^-0.5",
                )
        elif first.movement:
            x, _ = binned(counts, counts)
            effective.loglog(x, [c.lr] * len(x), color=color, label=c.optimizer)
    rows = "training rows that have the feature"
    decorate(movement, rows, "distance from the first weights", "Movement of weights (Zipf)")
    decorate(effective, rows, "lr / √(squared gradients)", "Effective step per weight (Zipf)")
    movement.set_ylim(bottom=movement.get_ylim()[0] / 20)  # room for the legend
    movement.legend(fontsize=9, loc="lower right")
    effective.legend(fontsize=9)
    return picture


def binned(counts: Tensor, values: Tensor) -> tuple[list[float], list[float]]:
    """Medians over features that are about equally frequent: two bins to each doubling of the count."""
    bins = torch.where(counts > 0, (2 * counts.double().clamp(min=1).log2()).floor(), -1)
    used = [number for number in bins.unique().tolist() if number >= 0]
    return (
        [float(counts[bins == number].double().mean()) for number in used],
        [float(values[bins == number].double().median()) for number in used],
    )


def rates_picture(losses: Mapping[tuple[str, str], Sequence[float]], rates: Sequence[float]) -> Figure:
    """Validation loss against learning rate; the ring is the choice."""
    picture = figure(10, 4)
    conditions = list(dict.fromkeys(condition for condition, _ in losses))
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        rows = {name: list(row) for (c, name), row in losses.items() if c == condition}
        for name, row in rows.items():
            axes.loglog(rates, row, color=LOOKS[name], marker=".", label=name)
            best = row.index(min(row))
            axes.loglog(rates[best], row[best], color=LOOKS[name], marker="o", markersize=9, fillstyle="none")
        axes.xaxis.set_minor_formatter("")
        lowest = min(map(min, rows.values()))
        axes.set_ylim(lowest * 0.85, max(4.0, lowest * 4))
        decorate(axes, "learning rate", "validation loss" if condition == conditions[0] else "", condition)
    axes.legend(fontsize=9)
    return picture
