"""Which optimizer learns from features that are seldom there? `python recipes/sparse_features.py`.

    "Adagrad is particularly effective for sparse features."

A digit has 64 pixels of 17 grey levels. Here each pair of pixel and level is a feature of its own, there or
not: 1088 features, of which a digit has 64. `EmbeddingBag(sparse=True)` adds up ten scores for each feature
that is there (softmax regression), and its gradient has the rows of these features alone.

Digits as they are make poor sparse data: every pixel is in every row, and its neighbours say the same. So the
experiment runs three times, with pixels hidden at random. The pixels get a random order, and that of rank r
is seen with probability r^-power, independently in each row:

    every pixel     power 0, 64 features in a row
    thinned         power 1/2, 14.5 features in a row
    Zipf            power 1, 4.7 features in a row, as words in texts: a few are common, most are rare

All optimizers get the same budget: the same passes in the same order, and the same grid of learning rates, of
which the one with the lowest loss on all validation rows is taken. The test rows are measured with that one
only. Each seed draws its own order of pixels, its own hidden pixels and its own batches, the same for all
optimizers. Weights start at zero.

*Rare rows* are a quarter of the rows: those whose features are the rarest, by the mean of 1 / (number of
training rows that have the feature; at least 1) over the features that they have.

SGD and Adagrad touch only the rows of the gradient. Momentum makes it dense, since a velocity also moves
weights whose gradient is zero. Adam refuses sparse gradients, as torch's does, and gets `sparse=False`;
torch's SparseAdam, which updates its moments only where the gradient has rows, is there for comparison.

The claim is borne out if, with leads and their standard errors taken over the seeds, seed by seed,

1. on Zipf's data Adagrad's accuracy on rare rows is ahead of SGD's and of Momentum's, which have one rate for
   all weights, by more than two standard errors,
2. no other optimizer is ahead of Adagrad there by more than two standard errors, and
3. its lead over SGD is larger there than with every pixel: it is sparsity that makes the difference.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression, median, stdev
from typing import Literal

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.command_line import check_seed, parse, plain_endings, progress_bar
from recipes.common.loop import one_thread
from recipes.common.parallel import in_parallel
from recipes.common.report import Report, Verdict, table
from recipes.parts import sparse_pictures as pictures
from recipes.parts.sparse_digits import OPTIMIZERS, Job, Outcome, rows_of, train

CLAIM = "Adagrad is particularly effective for sparse features"

CONDITIONS = {"every pixel": 0.0, "thinned": 0.5, "Zipf": 1.0}
# Test accuracy; set before the test rows were looked at, a little below what SGD reaches on validation rows.
TARGETS = {"every pixel": 0.90, "thinned": 0.50, "Zipf": 0.28}


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    rates: tuple[float, ...]
    """The grid of learning rates, the same for every optimizer."""
    search_seeds: int
    """Seeds for the choice of the rate."""
    seeds: int
    """Seeds for the test; others than those of the search."""
    rows: int | None
    """Training rows; None: all."""
    passes: int
    """Over the training rows."""
    measure_every: int
    """Steps from one measurement on the test rows to the next."""


HALF_DECADES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SIZES: dict[str, Size] = {
    "smoke": Size((0.03, 0.3), search_seeds=1, seeds=2, rows=200, passes=1, measure_every=4),
    "gallery": Size(HALF_DECADES, search_seeds=2, seeds=10, rows=None, passes=4, measure_every=12),
    "full": Size(HALF_DECADES, search_seeds=10, seeds=100, rows=None, passes=4, measure_every=12),
}


@dataclass(frozen=True)
class Config:
    """Compare Adagrad with SGD, Momentum, Adam and SparseAdam on sparse features.

    Ends with a table, three pictures, result.json and a verdict.
    """

    size: Literal["smoke", "gallery", "full"] = "gallery"
    """gallery takes some 80 seconds on two slow cores, full some ten minutes."""
    seed: int = 0
    """Shifts all seeds: other hidden pixels, other batches."""
    logdir: Path = Path("runs/sparse_features")
    """Where pictures, curves and result.json go."""


# -- all trainings -------------------------------------------------------------------------------------------


def steps_to(target: float, curve: Sequence[tuple[int, float]]) -> float:
    """The first measured step at which the accuracy is that high; infinite if it never is."""
    return next((float(step) for step, accuracy in curve if accuracy >= target), math.inf)


def movement_slope(counts: Sequence[float], movement: Sequence[float]) -> float:
    """The power of its count that a feature's weights move with, by least squares over those that moved."""
    moved = [(math.log(n), math.log(far)) for n, far in zip(counts, movement, strict=True) if n and far]
    return linear_regression(*zip(*moved, strict=True)).slope


@dataclass(frozen=True)
class Contender:
    """An optimizer with the rate that was chosen for it, over all seeds of the test."""

    condition: str
    optimizer: str
    lr: float
    at_edge: bool
    """The chosen rate is the grid's first or last: a better one may lie beyond."""
    outcomes: list[Outcome]
    slope: float
    """Movement of a feature's weights ~ count to this power; mean over the seeds."""

    def mean(self, name: str) -> float:
        """Of one figure, over the seeds."""
        return fmean(getattr(outcome, name) for outcome in self.outcomes)

    def spread(self, name: str) -> float:
        """Standard deviation of one figure over the seeds."""
        return float(stdev(getattr(outcome, name) for outcome in self.outcomes))

    def steps_to_target(self) -> float:
        """Median over the seeds."""
        return median(steps_to(TARGETS[self.condition], outcome.curve) for outcome in self.outcomes)


def lead(one: Contender, other: Contender, name: str = "rare_accuracy") -> tuple[float, float]:
    """By how much `one` is ahead, seed by seed: the mean, and its standard error."""
    pairs = zip(one.outcomes, other.outcomes, strict=True)
    differences = [getattr(a, name) - getattr(b, name) for a, b in pairs]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def one_by_one(
    function: Callable[[Job], Outcome], jobs: Sequence[Job], on_done: Callable[[], object]
) -> list[Outcome]:
    """As `in_parallel`, in this process."""
    outcomes = []
    with one_thread():
        for job in jobs:
            outcomes.append(function(job))
            on_done()
    return outcomes


def compete(config: Config) -> tuple[list[Contender], dict[tuple[str, str], list[float]]]:
    """Choose each one's rate on the validation rows, then train anew and measure on the test rows.

    Also gives the validation losses behind each choice, in the order of the grid.
    """
    size = SIZES[config.size]
    pairs = [(condition, name) for condition in CONDITIONS for name in OPTIMIZERS]
    search = [
        Job(CONDITIONS[condition], name, lr, config.seed + seed, "validation", size.rows, size.passes, 0)
        for condition, name in pairs
        for lr in size.rates
        for seed in range(size.search_seeds)
    ]
    total = len(search) + len(pairs) * size.seeds
    # To start processes would take longer than the whole smoke run.
    every = in_parallel if config.size != "smoke" else one_by_one
    with progress_bar(total, "training", "sparse features") as bar:
        searched = iter(every(train, search, bar.update))
        losses = {
            pair: [fmean(next(searched).loss for _ in range(size.search_seeds)) for _ in size.rates]
            for pair in pairs
        }
        best = {pair: size.rates[row.index(min(row))] for pair, row in losses.items()}
        seeds = [config.seed + 1000 + seed for seed in range(size.seeds)]
        finals = [
            Job(
                CONDITIONS[condition],
                name,
                best[condition, name],
                seed,
                "test",
                size.rows,
                size.passes,
                size.measure_every,
            )
            for condition, name in pairs
            for seed in seeds
        ]
        tested = iter(every(train, finals, bar.update))

    contenders = []
    for condition, name in pairs:
        outcomes = [next(tested) for _ in seeds]
        slopes = [
            movement_slope(
                rows_of(CONDITIONS[condition], seed, "test", size.rows).counts.tolist(), outcome.movement
            )
            for seed, outcome in zip(seeds, outcomes, strict=True)
            if outcome.movement
        ]
        lr = best[condition, name]
        at_edge = lr in (size.rates[0], size.rates[-1])
        contenders.append(
            Contender(condition, name, lr, at_edge, outcomes, fmean(slopes) if slopes else math.nan)
        )
    return contenders, losses


# -- the verdict ---------------------------------------------------------------------------------------------


def judge(contenders: Sequence[Contender]) -> Verdict:
    """The criterion of the docstring on top, point by point."""
    by = {(c.condition, c.optimizer): c for c in contenders}
    sparse = {name: by["Zipf", name] for name in OPTIMIZERS}
    adagrad = sparse["Adagrad"]
    leads = {name: lead(adagrad, other) for name, other in sparse.items() if name != "Adagrad"}
    with_all = lead(by["every pixel", "Adagrad"], by["every pixel", "SGD"])
    ahead = all(leads[name][0] > 2 * leads[name][1] for name in ("SGD", "Momentum"))
    unbeaten = all(mean > -2 * error for mean, error in leads.values())
    particular = leads["SGD"][0] > with_all[0]
    listed = ", ".join(f"{name} {points(*lead_)}" for name, lead_ in leads.items())
    return Verdict(
        CLAIM,
        ahead and unbeaten and particular,
        f"on rare rows of Zipf's data Adagrad is right in {100 * adagrad.mean('rare_accuracy'):.1f} %; "
        f"its lead in percentage points, ± one standard error over {len(adagrad.outcomes)} seeds, is over "
        f"{listed}; with every pixel in every row its lead over SGD is {points(*with_all)}; on Zipf's data a "
        f"weight moves like its feature's count to the power of {sparse['SGD'].slope:.2f} under SGD, "
        f"{adagrad.slope:.2f} under Adagrad and {sparse['Adam'].slope:.2f} under Adam",
    )


def points(mean: float, error: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * mean:+.1f} ± {100 * error:.1f}"


def outcome_table(contenders: Sequence[Contender]) -> str:
    """A row for each optimizer and condition; means, and ± one standard deviation over the seeds."""
    lines = []
    for c in contenders:
        steps = c.steps_to_target()
        lines.append(
            [
                f"{c.condition}: {c.optimizer}",
                f"{c.lr:g}{'!' if c.at_edge else ''}",
                *(
                    f"{100 * c.mean(name):.1f} ± {100 * c.spread(name):.1f}"
                    for name in ("accuracy", "rare_accuracy", "common_accuracy")
                ),
                f"{c.mean('loss'):.3f}",
                f"{c.mean('rare_loss'):.3f}",
                f"{steps:.0f}" if math.isfinite(steps) else "never",
                f"{c.slope:.2f}",
            ]
        )
    head = (
        "", "rate", "test\naccuracy", "on rare\nrows", "on the\nothers", "test\nloss", "on rare\nrows",
        "steps to\ntarget", "movement ~\ncount^",
    )  # fmt: skip
    targets = ", ".join(f"{name} {100 * target:.0f} %" for name, target in TARGETS.items())
    return (
        f"{table(head, lines)}\n\nAccuracies in percent, ± standard deviation over "
        f"{len(contenders[0].outcomes)} seeds. Targets: {targets}.\n"
        "! The chosen rate is at the edge of the grid."
    )


def as_row(contender: Contender) -> dict[str, object]:
    """The table's numbers, for programs."""
    figures = ("loss", "rare_loss", "accuracy", "rare_accuracy", "common_accuracy")
    return {
        "condition": contender.condition,
        "optimizer": contender.optimizer,
        "lr": contender.lr,
        "at_edge": contender.at_edge,
        "steps_to_target": finite(contender.steps_to_target()),
        "movement_slope": finite(contender.slope),
        **{f"{name}_by_seed": [finite(getattr(o, name)) for o in contender.outcomes] for name in figures},
    }


def finite(number: float) -> float | None:
    """JSON knows neither infinity nor NaN."""
    return number if math.isfinite(number) else None


def run(config: Config) -> None:
    """Train them all, draw, judge."""
    check_seed(config.seed)
    with Report(config.logdir, "sparse_features", config) as report:
        contenders, losses = compete(config)
        for c in contenders:
            curves = [outcome.curve for outcome in c.outcomes if outcome.curve]
            for points_ in zip(*curves, strict=True):
                tag = f"test_accuracy/{c.condition.replace(' ', '_')}/{c.optimizer}"
                report.curve(tag, [fmean(accuracy for _, accuracy in points_)], [points_[0][0]])
        counts = rows_of(CONDITIONS["Zipf"], config.seed + 1000, "test", SIZES[config.size].rows).counts
        zipf = [c for c in contenders if c.condition == "Zipf"]
        report.picture("accuracy", pictures.accuracy_picture(contenders, tuple(CONDITIONS)))
        report.picture("rare_weights", pictures.weights_picture(zipf, counts))
        report.picture("learning_rates", pictures.rates_picture(losses, SIZES[config.size].rates))
        report.finish(outcome_table(contenders), [as_row(c) for c in contenders], judge(contenders))


def main() -> None:
    """Read the command line and run."""
    config = parse(Config)
    with plain_endings():
        run(config)


if __name__ == "__main__":
    main()
