"""The pictures of `recipes/optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from recipes.common.pictures import COLORS, Figure, decorate, figure
from recipes.parts.trials import CONTENDERS, Budget, Result

# Adam's relatives often take Adam's very path: broken lines let it be seen below them.
DASHES = {"AMSGrad": "--", "AdamW": ":"}


def draw_sensitivity(accuracies: Mapping[tuple[Budget, str], Mapping[float, float]]) -> Figure:
    """How much it matters to know the learning rate: accuracy at each rate, for each budget and optimizer."""
    budgets = list(dict.fromkeys(budget for budget, _ in accuracies))
    picture = figure(9, 4)
    for axes, budget in zip(picture.subplots(1, len(budgets), sharey=True), budgets, strict=True):
        for name in CONTENDERS:
            line = accuracies[budget, name]
            axes.semilogx(line.keys(), line.values(), DASHES.get(name, "-"), color=COLORS[name], label=name)
            best = max(line, key=line.__getitem__)
            axes.plot(best, line[best], "*", color=COLORS[name], markersize=11)
        decorate(axes, "learning rate", "", f"after {budget}")
    picture.axes[0].set_ylabel("validation accuracy")
    picture.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def draw_curves(results: Sequence[Result]) -> Figure:
    """Accuracy on the way: mean over the seeds, and the band between the worst and the best."""
    contests = list(dict.fromkeys(result.contest for result in results))
    picture = figure(11, 4)
    for axes, contest in zip(picture.subplots(1, len(contests)), contests, strict=True):
        for result in results:
            if result.contest == contest:
                name, steps = result.choice.optimizer, result.outcomes[0].steps
                axes.plot(steps, result.mean_curve, DASHES.get(name, "-"), color=COLORS[name], label=name)
                if name in ("Adam", "Momentum"):  # eight bands would hide each other
                    seeds = list(zip(*(outcome.accuracy for outcome in result.outcomes), strict=True))
                    low, high = [min(seen) for seen in seeds], [max(seen) for seen in seeds]
                    axes.fill_between(steps, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
        axes.axhline(contest.budget.target, color="0.4", linestyle=":", label="target")
        decorate(axes, "step", "", str(contest))
    picture.axes[0].set_ylabel("validation accuracy, mean of the seeds")
    picture.suptitle("Bands, for Adam and Momentum only: from the worst seed to the best", fontsize=11)
    picture.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def draw_spread(results: Sequence[Result]) -> Figure:
    """Test accuracy: a dot for each seed, a bar for their mean."""
    contests = list(dict.fromkeys(result.contest for result in results))
    picture = figure(11, 4)
    for axes, contest in zip(picture.subplots(1, len(contests), sharey=True), contests, strict=True):
        for result in results:
            if result.contest == contest:
                name = result.choice.optimizer
                percent = [100 * accuracy for accuracy in result.tests]
                axes.plot(percent, [name] * len(percent), "o", color=COLORS[name], alpha=0.6)
                axes.plot(fmean(percent), name, "|", color=COLORS[name], markersize=22, markeredgewidth=2.5)
        decorate(axes, "test accuracy in %", "", str(contest))
    picture.axes[0].invert_yaxis()  # shared, so in all: the first name on top
    return picture
