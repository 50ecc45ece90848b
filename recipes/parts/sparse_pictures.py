"""The pictures of `recipes/sparse_features.py`: regret by document, steps by frequency, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recipes.common.pictures import COLORS, Figure, decorate, figure, plain_log

if TYPE_CHECKING:
    from recipes.sparse_features import Contender

LOOKS = {**COLORS, "SGD, η/√t": "#999999", "SparseAdam": COLORS["Adam"]}


def regret_picture(contenders: Sequence[Contender], conditions: Sequence[str]) -> Figure:
    """Average loss so far against the number of documents; mean of the streams, and one standard error."""
    picture = figure(11, 4.6)
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        for c in (c for c in contenders if c.condition == condition):
            curves = torch.tensor([outcome.regret for outcome in c.outcomes])
            mean, error = curves.mean(dim=0), curves.std(dim=0) / len(curves) ** 0.5
            seen, color = c.outcomes[0].seen, LOOKS[c.optimizer]
            axes.plot(seen, mean, color=color, label=c.optimizer, linewidth=2)
            axes.fill_between(seen, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        decorate(axes, "documents seen", "", condition)
    picture.axes[0].set_ylabel("average loss of a document before it was learnt from")
    picture.axes[-1].legend(title="bands: one standard error")
    return picture


def steps_picture(contenders: Sequence[Contender], counts: Tensor) -> Figure:
    """What a gradient is multiplied with in the end, by how many documents have the word."""
    picture = figure(9, 5)
    axes = picture.subplots()
    for c in contenders:
        x, y = binned(counts, torch.tensor(c.outcomes[0].effective_steps).expand(len(counts)))
        look = "o--" if c.optimizer == "Momentum" else "o-"  # its line may lie upon that of SGD
        axes.loglog(x, y, look, color=LOOKS[c.optimizer], markersize=4, label=c.optimizer)
        if c.optimizer == "Adagrad":
            line = [y[-1] * (n / x[-1]) ** -0.5 for n in x]
            axes.loglog(x, line, color=LOOKS[c.optimizer], linestyle=":", label="count^-0.5")
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


def rates_picture(losses: Mapping[tuple[str, str], Sequence[float]], rates: Sequence[float]) -> Figure:
    """Loss on the tuning stream against learning rate; the ring is the choice."""
    picture = figure(11, 4.6)
    conditions = list(dict.fromkeys(condition for condition, _ in losses))
    for axes, condition in zip(picture.subplots(1, len(conditions)), conditions, strict=True):
        rows = {name: list(row) for (c, name), row in losses.items() if c == condition}
        for name, row in rows.items():
            axes.loglog(rates, row, color=LOOKS[name], marker=".", label=name)
            best = row.index(min(row))
            axes.loglog(rates[best], row[best], color=LOOKS[name], marker="o", markersize=9, fillstyle="none")
        lowest = min(map(min, rows.values()))
        axes.set_ylim(lowest * 0.9, lowest * 4)
        plain_log(axes.yaxis)
        decorate(axes, "learning rate", "", condition)
    picture.axes[0].set_ylabel("average loss on the tuning stream")
    picture.axes[-1].legend(title="ring: the choice")
    return picture
