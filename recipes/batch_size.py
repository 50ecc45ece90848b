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
import runpy
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from torch import nn

import torchopt_course as optim
from recipes.common.command_line import progress_bar
from recipes.common.data import Data, DataName, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import evaluate, steps
from recipes.common.model import make_model
from recipes.common.pictures import Figure, decorate, panels, plain_log
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.gradient_noise import Noise, noise

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
    looks: list[tuple[int, float, float]]
    """Steps, seconds and validation loss on the way."""
    model: nn.Module


def descend(data: Data, size: Size, batch_size: int, lr: float, seed: int) -> Descent:
    """θ -= η g until the target, the limit, or a loss that is not finite."""
    model = make_model("mlp", data, seed)
    training = steps(model, optim.SGD(model.parameters(), lr=lr), data, batch_size, seed)
    limit = min(size.max_steps, size.max_epochs * math.ceil(len(data.train_inputs) / batch_size))
    every = max(1, size.look_rows // batch_size)
    looks: list[tuple[int, float, float]] = []
    seconds, validation_loss = 0.0, math.inf
    with suppress(TrainingDivergedError):
        for step in range(1, limit + 1):
            started = time.process_time()
            next(training)
            seconds += time.process_time() - started
            if step % every == 0:
                validation_loss, _ = evaluate(model, data.eval_inputs, data.eval_targets)
                looks.append((step, seconds, validation_loss))
            if validation_loss <= size.target:
                return Descent(step, seconds, looks, model)
    return Descent(math.inf, math.inf, looks, model)


def run(report: Report, size: Size, seed: int) -> None:
    """Choose the rates, race, measure the noise, judge."""
    data = load_data(size.data, "validation")
    sizes = [*size.batch_sizes, len(data.train_inputs)]
    rates: dict[int, float] = {}
    races: dict[int, list[Descent]] = {batch_size: [] for batch_size in sizes}
    with progress_bar(len(sizes) * (len(size.rates) + size.seeds), "training") as bar:
        for batch_size in sizes:
            taken = {}
            for lr in size.rates:
                taken[lr] = descend(data, size, batch_size, lr, seed).steps
                bar.update()
            rates[batch_size] = min(taken, key=taken.__getitem__)  # of equals the smaller
        for fresh in range(seed + 1, seed + 1 + size.seeds):
            for batch_size in sizes:  # in turns: a busy moment of the machine hits all alike
                races[batch_size].append(descend(data, size, batch_size, rates[batch_size], fresh))
                bar.update()

    trained = races[sizes[len(sizes) // 2]][0].model
    places = {"initial weights": make_model("mlp", data, seed), "trained weights": trained}
    noises = {place: noise(model, data, size.draws, seed) for place, model in places.items()}
    slopes = {place: found.slope for place, found in noises.items()}

    for place, found in noises.items():
        words = "E|g_B - ∇f|² of batches drawn with replacement; the step is their size B."
        report.curve(f"gradient_variance/{place}", words, found.measured[True], found.batch_sizes)
    for batch_size, descents in races.items():
        steps_seen, _, losses = zip(*descents[0].looks, strict=True)
        report.curve(f"validation_loss/batch_{batch_size}", "After the step; first seed.", losses, steps_seen)
    report.picture("gradient_variance", draw_noise(noises))
    report.picture("race", draw_race(races, size.target))
    rows = [
        {
            "batch_size": batch_size,
            "lr": rates[batch_size],
            "rate_at_edge": rates[batch_size] in (size.rates[0], size.rates[-1]),
            "median_steps": median(d.steps for d in descents),
            "median_rows": median(d.steps for d in descents) * batch_size,
            "median_seconds": median(d.seconds for d in descents),
        }
        for batch_size, descents in races.items()
    ]
    columns = {
        "batch": "{batch_size:,}",
        "rate": "{lr:.2g}{rate_at_edge}",
        f"steps to\nloss {size.target:g}": "{median_steps:,.0f}",
        "rows to\nthere": "{median_rows:,.0f}",
        "CPU\nseconds": "{median_seconds:.3f}",
    }
    note = f"medians of {size.seeds} seeds; the last batch is all rows; !: the end of the grid of rates"
    text = f"{table_of(rows, columns, missing='missed')}\n\n{note}"
    report.finish(text, rows, verdict(races, slopes), slopes=slopes)


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
    took = {batch_size: f"{median(all_seeds):.2g}" for batch_size, all_seeds in seconds.items()}
    return Verdict(
        CLAIM,
        falls and wins,
        f"the slope was {' and '.join(f'{slope:.3f} ({place})' for place, slope in slopes.items())}; to the "
        f"target batches of {mini} took {took[mini]} CPU seconds, gradient descent on all {everything:,} "
        f"{took[everything]}, single rows {took[single]} on this machine (medians of all seeds)",
    )


BLUE, ORANGE = "#0072B2", "#D55E00"


def draw_noise(noises: Mapping[str, Noise]) -> Figure:
    """Theory as lines, measurements as dots."""
    picture, both = panels(9, 4.2, columns=len(noises), sharey=True)
    picture.suptitle("The gradient of a batch; lines: theory, dots: measured")
    for axes, (place, found) in zip(both, noises.items(), strict=True):
        for replacement, label, color in (
            (True, "drawn with replacement: σ²/B", BLUE),
            (False, "without: σ²/B · (N - B)/(N - 1)", ORANGE),
        ):
            axes.loglog(found.batch_sizes, found.predicted[replacement], color=color, label=label)
            axes.loglog(found.batch_sizes, found.measured[replacement], "o", color=color)
        title = f"{place}: slope {found.slope:.3f}"
        decorate(axes, "batch size B", "its variance, E|g_B - ∇f|²", title)
        axes.legend()
        axes.label_outer()
    return picture


def draw_race(races: Mapping[int, Sequence[Descent]], target: float) -> Figure:
    """The loss on the way: one row, some, all of them; and how long every batch size took to the target."""
    picture, (left, right) = panels(11, 4.4, columns=2)
    single, *_, everything = races
    for size, name, color in (
        (single, "single rows", "0.6"),
        (fastest(races), f"mini-batches of {fastest(races):,}", BLUE),
        (everything, f"gradient descent on all {everything:,}", ORANGE),
    ):
        _, seconds, losses = zip(*races[size][0].looks, strict=True)
        left.semilogx(seconds, losses, color=color, linewidth=1.8, label=name)
        left.plot(seconds[-1], losses[-1], "o", color=color)
    left.axhline(target, color="0.4", linestyle=":", label="target")
    medians = [median(d.seconds for d in descents) for descents in races.values()]
    right.loglog(races.keys(), medians, color=BLUE)
    for size, descents in races.items():
        right.loglog([size] * len(descents), [d.seconds for d in descents], "o", color=BLUE, alpha=0.4)
    plain_log(right.yaxis)
    decorate(left, "CPU seconds of training", "validation loss", "Three ways down")
    decorate(right, "batch size", f"CPU seconds to loss {target:g}", "All batch sizes, a dot for each seed")
    left.legend()
    return picture


if __name__ == "__main__":
    main(__doc__, SIZES, run)
