"""The pictures of `recipes/sparse_features.py`: regret by document, steps by frequency, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recipes.common.pictures import COLORS, Figure, decorate, figure, plain_log

LOOKS = {**COLORS, "SGD, η/√t": "#999999", "SparseAdam": COLORS["Adam"]}


def regret_picture(
    seen: Sequence[int],
    curves: Mapping[tuple[str, str], Sequence[Sequence[float]]],
    conditions: Sequence[str],
) -> Figure:
    """Average loss so far against the number of documents; mean of the streams, and one standard error."""
    picture = figure(11, 4.6)
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        for name in (name for where, name in curves if where == condition):
            regrets = torch.tensor(curves[condition, name])
            mean, error = regrets.mean(dim=0), regrets.std(dim=0) / len(regrets) ** 0.5
            axes.plot(seen, mean, color=LOOKS[name], label=name, linewidth=2)
            axes.fill_between(seen, mean - error, mean + error, color=LOOKS[name], alpha=0.2, linewidth=0)
        decorate(axes, "documents seen", "", condition)
    picture.axes[0].set_ylabel("average loss of a document before it was learnt from")
    picture.axes[-1].legend(title="bands: one standard error")
    return picture


def steps_picture(steps: Mapping[str, Sequence[float]], counts: Tensor) -> Figure:
    """What a gradient is multiplied with in the end, by how many documents have the word."""
    picture = figure(9, 5)
    axes = picture.subplots()
    for name, of_words in steps.items():
        x, y = binned(counts, torch.tensor(of_words).expand(len(counts)))
        look = "o--" if name == "Momentum" else "o-"  # its line may lie upon that of SGD
        axes.loglog(x, y, look, color=LOOKS[name], markersize=4, label=name)
        if name == "Adagrad":
            line = [y[-1] * (n / x[-1]) ** -0.5 for n in x]
            axes.loglog(x, line, color=LOOKS[name], linestyle=":", label="count^-0.5")
    decorate(
        axes, "documents that have the word", "what a gradient is multiplied with in the end",
        "Adagrad and Adam learn a rare word with large steps, a common one with small ones",
    )  # fmt: skip
    picture.legend(loc="outside right center", frameon=False)
    return picture


def binned(counts: Tensor, values: Tensor) -> tuple[list[float], list[float]]:
    """Medians over features that are about equally frequent: two bins to each doubling of the count."""
    bins = torch.where(counts > 0, (2 * counts.double().clamp(min=1).log2()).floor(), -1)
    used = [number for number in bins.unique().tolist() if number >= 0]
    return (
        [float(counts[bins == number].double().mean()) for number in used],
        [float(values[bins == number].double().median()) for number in used],
    )


def rates_picture(
    losses: Mapping[tuple[str, str], Mapping[float, float]], conditions: Sequence[str]
) -> Figure:
    """Loss on the tuning stream against learning rate; the ring is the choice."""
    picture = figure(11, 4.6)
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        lines = {name: line for (where, name), line in losses.items() if where == condition}
        for name, line in lines.items():
            axes.loglog(line.keys(), line.values(), color=LOOKS[name], marker=".", label=name)
            best = min(line, key=line.__getitem__)
            axes.loglog(best, line[best], color=LOOKS[name], marker="o", markersize=9, fillstyle="none")
        lowest = min(min(line.values()) for line in lines.values())
        axes.set_ylim(lowest * 0.9, lowest * 4)
        plain_log(axes.yaxis)
        decorate(axes, "learning rate", "", condition)
    picture.axes[0].set_ylabel("average loss on the tuning stream")
    picture.axes[-1].legend(title="ring: the choice")
    return picture
