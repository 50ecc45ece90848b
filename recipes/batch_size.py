"""How many rows should one step see? `python recipes/batch_size.py`.

Gradient descent, single-sample SGD and mini-batch SGD are one rule, θ -= η g. They differ in the rows that g
is the mean gradient of: all N, one, or B of them. The lecture: the variance of the gradient falls as 1/B, and
mini-batches are the compromise between few, expensive steps and many, noisy ones.

Experiment:

- Noise, at initial weights and at trained ones: draw many batches of each size and take the mean squared
  distance of their gradients from the gradient of all rows, E|g_B - ∇f|². Drawn with replacement it must be
  σ²/B, where σ² is the variance of the gradients of single rows. Drawn without, as in an epoch, every row
  seen leaves less to be unsure of: σ²/B · (N - B)/(N - 1).
- Race: each batch size has its own learning rate, the one of a grid with the fewest steps to the target loss
  on the validation rows (no accuracy is claimed, so the test rows are not needed). Then it starts from fresh
  seeds, all sizes in turns. A run that misses the target counts as infinite. Seconds are CPU time of one
  thread, spent in training and not in measuring, so that other programs matter little.

The verdict, agreed before the run. The claim is borne out if

1. the slope of log variance against log B, drawn with replacement, is -1 ± 0.05 at both places, and
2. the mini-batch with the fewest seconds (median over the seeds) takes fewer in its slowest seed than
   gradient descent and single-sample SGD each in their fastest.

The second is about this machine: on another, a large step may cost more or less than many small ones.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn
from torch.nn import functional as F

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torchopt_course as optim
from recipes.common.command_line import progress_bar
from recipes.common.data import Data, DataName, load_data
from recipes.common.loop import evaluate
from recipes.common.model import make_model
from recipes.common.pictures import Figure, decorate, figure, plain_log
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.gradient_noise import Noise, noise, predicted_variance
from recipes.parts.trials import batches

CLAIM = "The variance of the gradient falls as 1/B, and mini-batches are the compromise: in seconds they win"


@dataclass(frozen=True)
class Size:
    """How large the experiment is. The batch of all rows is added to the batch sizes."""

    data: DataName
    batch_sizes: tuple[int, ...]
    rates: tuple[float, ...]
    target: float
    """Loss on the validation rows."""
    max_steps: int
    max_epochs: int
    """Whichever is first ends a run that has not reached the target."""
    look_rows: int
    """The validation rows are measured every so many training rows, or after each step."""
    seeds: int
    draws: int
    """Batches drawn for each variance."""


SIZES = {
    "smoke": Size(
        "digits", batch_sizes=(1, 32), rates=(0.03, 0.3), target=1.5,
        max_steps=1_000, max_epochs=60, look_rows=64, seeds=2, draws=20,
    ),
    "gallery": Size(
        "digits", batch_sizes=(1, 4, 16, 64, 256), rates=tuple(10 ** (half / 2) for half in range(-5, 2)),
        target=0.25, max_steps=3_000, max_epochs=300, look_rows=64, seeds=5, draws=200,
    ),
    "full": Size(
        "fashion-mnist", batch_sizes=(1, 8, 64, 512, 4096),
        rates=tuple(10 ** (half / 2) for half in range(-6, 2)),
        target=0.4, max_steps=100_000, max_epochs=1_000, look_rows=2_048, seeds=5, draws=300,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Descent:
    """One training up to the target loss."""

    steps: float
    """Taken to the target; infinite if it was missed."""
    seconds: float
    """CPU time spent in training until then, likewise."""
    rows_per_second: float
    looks: list[tuple[int, float, float]]
    """Steps, seconds and validation loss on the way."""
    model: nn.Module


def descend(data: Data, size: Size, batch_size: int, lr: float, seed: int) -> Descent:
    """θ -= η g until the target, the limit, or a loss that is not finite."""
    model = make_model("mlp", data, seed)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    rows_there = len(data.train_inputs)
    limit = min(size.max_steps, size.max_epochs * math.ceil(rows_there / batch_size))
    every = max(1, size.look_rows // batch_size)
    looks: list[tuple[int, float, float]] = []
    seconds = 0.0
    for step, rows in batches(rows_there, batch_size, limit, seed):
        started = time.process_time()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows])
        loss.backward()
        optimizer.step()
        seconds += time.process_time() - started
        if step % every == 0:
            validation_loss, _ = evaluate(model, data.eval_inputs, data.eval_targets)
            looks.append((step, seconds, validation_loss))
            if validation_loss <= size.target or not math.isfinite(validation_loss):
                break
    speed = step * batch_size / seconds
    reached = bool(looks) and looks[-1][2] <= size.target
    return Descent(step if reached else math.inf, seconds if reached else math.inf, speed, looks, model)


def run(report: Report, size: Size, seed: int) -> None:
    """Choose the rates, measure the noise, race, judge."""
    data = load_data(size.data, "validation")
    sizes = [*size.batch_sizes, len(data.train_inputs)]

    races: dict[int, list[Descent]] = {batch_size: [] for batch_size in sizes}
    with progress_bar(len(sizes) * (len(size.rates) + size.seeds), "training") as bar:
        rates = {}
        for batch_size in sizes:
            steps = {}
            for lr in size.rates:
                steps[lr] = descend(data, size, batch_size, lr, seed).steps
                bar.update()
            rates[batch_size] = min(steps, key=steps.__getitem__)  # of equals the smaller
        for fresh in range(seed + 1, seed + 1 + size.seeds):
            for batch_size in sizes:  # in turns: a busy moment of the machine hits all alike
                races[batch_size].append(descend(data, size, batch_size, rates[batch_size], fresh))
                bar.update()

    trained = races[sizes[len(sizes) // 2]][0].model
    places = {"initial weights": make_model("mlp", data, seed), "trained weights": trained}
    noises = [noise(place, model, data, size.draws, seed) for place, model in places.items()]

    for measured in noises:
        words = "E|g_B - ∇f|² of batches drawn with replacement; the step is their size B."
        curve = measured.with_replacement, measured.batch_sizes
        report.curve(f"gradient_variance/{measured.place}", words, *curve)
    for batch_size, descents in races.items():
        steps_seen, _, losses = zip(*descents[0].looks, strict=True)
        report.curve(f"validation_loss/batch_{batch_size}", "After the step; first seed.", losses, steps_seen)
    report.picture("gradient_variance", draw_noise(noises, len(data.train_inputs)))
    panels = {
        f"steps to loss {size.target:g}": {b: [d.steps for d in races[b]] for b in races},
        f"CPU seconds to loss {size.target:g}": {b: [d.seconds for d in races[b]] for b in races},
        "rows per CPU second": {b: [d.rows_per_second for d in races[b]] for b in races},
    }
    report.picture("steps_and_seconds", draw_cost(panels))
    shown = {b: races[b][0].looks for b in (sizes[0], fastest(races), sizes[-1])}
    report.picture("race", draw_race(shown, size.target))
    rows = [row(batch_size, rates[batch_size], descents, size) for batch_size, descents in races.items()]
    slopes = {measured.place: measured.slope for measured in noises}
    report.finish(text(rows, size, slopes), rows, verdict(races, slopes), slopes=slopes)


def row(batch_size: int, lr: float, descents: Sequence[Descent], size: Size) -> dict[str, Any]:
    """A line of the table as numbers; a missed target is infinite."""
    steps, seconds = (median(getattr(d, what) for d in descents) for what in ("steps", "seconds"))
    return {
        "batch_size": batch_size,
        "lr": lr,
        "rate_at_edge": lr in (size.rates[0], size.rates[-1]),
        "median_steps": steps,
        "median_seconds": seconds,
        "seconds": [d.seconds for d in descents],
        "median_rows": steps * batch_size,
        "rows_per_second": median(d.rows_per_second for d in descents),
    }


def fastest(races: Mapping[int, Sequence[Descent]]) -> int:
    """The mini-batch with the fewest seconds."""
    _, *minis, _ = races
    return min(minis, key=lambda size: median(descent.seconds for descent in races[size]))


def verdict(races: Mapping[int, Sequence[Descent]], slopes: Mapping[str, float]) -> Verdict:
    """The criterion at the top of this file, applied."""
    single, *_, everything = races
    mini = fastest(races)
    seconds = {batch_size: [d.seconds for d in descents] for batch_size, descents in races.items()}
    falls = all(abs(slope + 1) <= 0.05 for slope in slopes.values())
    wins = max(seconds[mini]) < min(*seconds[single], *seconds[everything])
    costs = {
        size: f"{median(d.steps for d in races[size]):,.0f} steps and {median(seconds[size]):.2g} CPU s"
        for size in (mini, everything, single)
    }
    evidence = (
        f"the slope was {' and '.join(f'{slope:.3f} ({place})' for place, slope in slopes.items())}; to the "
        f"target batches of {mini} took {costs[mini]}, gradient descent on all {everything:,} "
        f"{costs[everything]}, single rows {costs[single]} on this machine (medians of {len(races[single])} "
        f"seeds)"
    )
    return Verdict(CLAIM, falls and wins, evidence)


def text(rows: Sequence[Mapping[str, Any]], size: Size, slopes: Mapping[str, float]) -> str:
    """The race as a table, and the slopes."""
    columns = {
        "batch": "{batch_size:,}",
        "rate": "{lr:.2g}{rate_at_edge}",
        f"steps to\nloss {size.target:g}": "{median_steps:,.0f}",
        "rows to\nthere": "{median_rows:,.0f}",
        "CPU\nseconds": "{median_seconds:.3f}",
        "rows per\nCPU second": "{rows_per_second:,.0f}",
    }
    notes = [f"medians of {size.seeds} seeds; the last batch is all rows; !: the end of the grid of rates"]
    notes += [f"slope of log variance against log B, {place}: {slope:.3f}" for place, slope in slopes.items()]
    return "\n".join([table_of(rows, columns, missing="missed"), "", *notes])


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
        if "seconds" in title:
            plain_log(axes.yaxis)
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
    picture.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return picture


if __name__ == "__main__":
    main(__doc__, SIZES, run)
