"""The pictures of `recipes/batch_size.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from recipes.common.pictures import Figure, decorate, figure
from recipes.parts.gradient_noise import Noise, predicted_variance

BLUE, ORANGE = "#0072B2", "#D55E00"


def draw_noise(noises: Sequence[Noise], rows: int) -> Figure:
    """Theory as lines, measurements as dots."""
    picture = figure(9, 4)
    for axes, measured in zip(picture.subplots(1, len(noises), sharey=True), noises, strict=True):
        sizes = measured.batch_sizes
        for replacement, color, dots in (
            (True, BLUE, measured.with_replacement),
            (False, ORANGE, measured.without_replacement),
        ):
            theory = [predicted_variance(measured.variance, b, rows, replacement=replacement) for b in sizes]
            how = "with" if replacement else "without"
            formula = "σ²/B" if replacement else "σ²/B · (N - B)/(N - 1)"
            axes.loglog(sizes, theory, "-", color=color, label=formula)
            axes.loglog(
                sizes, dots, "o", color=color, markersize=5, label=f"measured, drawn {how} replacement"
            )
        decorate(axes, "batch size B", "", f"{measured.place}: slope {measured.slope:.3f}")
        axes.legend(fontsize="small", frameon=False)
    picture.axes[0].set_ylabel("variance of the gradient, E|g_B - ∇f|²")
    return picture


def draw_cost(panels: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """A panel for each quantity: its median against the batch size, and a dot for each seed."""
    picture = figure(11, 3.8)
    for axes, (title, values) in zip(picture.subplots(1, len(panels)), panels.items(), strict=True):
        axes.loglog(list(values), [median(seeds) for seeds in values.values()], color=BLUE)
        for batch_size, seeds in values.items():
            axes.loglog([batch_size] * len(seeds), seeds, "o", color=BLUE, alpha=0.4, markersize=4)
        decorate(axes, "batch size", "", title)
    return picture


def draw_race(looks: Mapping[int, Sequence[tuple[int, float, float]]], target: float) -> Figure:
    """The loss on the way against the clock and against the number of steps: one row, some, all of them."""
    picture = figure(10, 4.4)
    labels = {1: "CPU seconds of training", 0: "steps"}
    names = ("single rows", "mini-batches of {:,}", "gradient descent on all {:,}")
    for axes, (column, label) in zip(picture.subplots(1, 2, sharey=True), labels.items(), strict=True):
        for name, color, (batch_size, seen) in zip(names, ("0.6", BLUE, ORANGE), looks.items(), strict=False):
            x, losses = [look[column] for look in seen], [look[2] for look in seen]
            axes.semilogx(x, losses, color=color, linewidth=1.8, label=name.format(batch_size))
            axes.plot(x[-1], losses[-1], "o", color=color)
        axes.axhline(target, color="0.4", linestyle=":", label="target")
        decorate(axes, label, "")
    picture.axes[0].set_ylabel("validation loss")
    picture.axes[0].legend()
    return picture
