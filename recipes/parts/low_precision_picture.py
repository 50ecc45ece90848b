"""The picture of `recipes/low_precision.py`: who still moves, who still learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from recipes.common.pictures import decorate, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recipes.parts.few_bits import Outcome

# Okabe and Ito's, as in `recipes/common/pictures.py`; in the order of the ways.
COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#999999")


def draw(outcomes: Mapping[str, Sequence[Outcome]]) -> Figure:
    """Which weights still move as the rate falls, and the training loss."""
    picture = figure(11, 4.8)
    moving, losses = picture.subplots(1, 2)
    for (way, runs), color in zip(outcomes.items(), COLORS, strict=True):
        style = {"color": color, "linestyle": "--" if way.startswith("states") else "-", "label": way}
        shares = [100 * fmean(values) for values in zip(*(run.moved for run in runs), strict=True)]
        moving.plot(runs[0].looked, shares, linewidth=1.8, **style)
        mean = [fmean(values) for values in zip(*(run.losses for run in runs), strict=True)]
        losses.semilogy(range(1, len(mean) + 1), mean, linewidth=1.8, marker=".", **style)
    decorate(moving, "step", "weights with a gradient that move, %", "The rate falls: who still moves?")
    decorate(losses, "epoch", "training loss (mean of seeds)", "Who still learns?")
    losses.legend(fontsize=8)
    return picture
