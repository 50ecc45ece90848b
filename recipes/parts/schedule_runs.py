"""What comparisons of schedules share: trainings from several seeds, the choice of a setting, the spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from torch import nn

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Epoch
from recipes.common.model import ModelName, make_model
from recipes.common.report import Report
from recipes.parts.statistics import mean_curve

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    data: DataName
    model: ModelName
    rows: int | None
    """Rows to train on; all of them if `None`."""
    epochs: int
    batch_size: int
    search_seeds: int
    """Trainings of each setting that is tried, on validation rows."""
    seeds: int
    """Trainings of each finished choice, measured on the test rows."""

    def load(self, split: Split) -> Data:
        """The rows."""
        data = load_data(self.data, split)
        return data.first(self.rows or len(data.train_rows))

    def model_and_optimizer(self, data: Data, lr: float, seed: int) -> tuple[nn.Module, optim.SGD]:
        """The network with its initial weights, and the optimizer: the same for every schedule."""
        model = make_model(self.model, data, seed)
        return model, optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)


@dataclass(frozen=True)
class Run:
    """One training. The learning rate of every step; loss and accuracy of every epoch."""

    lrs: list[float]
    losses: list[float]
    """Mean over the training rows, each measured just before the step that used it."""
    accuracies: list[float]
    """Of the rows that are only measured."""


def recorded(
    epochs: Iterable[Epoch], total: int, after: Callable[[Epoch], object] = lambda epoch: None
) -> Run:
    """Let a training of `total` epochs run to its end; `after` sees every epoch.

    The epochs that are missing because it diverged have an infinite loss, and nothing right.
    """
    run = Run([], [], [])
    try:
        for epoch in epochs:
            run.lrs.extend(epoch.lrs)
            run.losses.append(epoch.train_loss)
            run.accuracies.append(epoch.accuracy)
            after(epoch)
    except TrainingDivergedError:
        missing = total - len(run.losses)
        run.losses.extend([math.inf] * missing)
        run.accuracies.extend([0.0] * missing)
    return run


def compete(
    report: Report,
    train_once: Callable[[Setting, Size, Split, int], Run],
    tried: dict[str, list[Setting]],
    size: Size,
    seed: int,
    more: Callable[[dict[str, Setting]], dict[str, Setting]] = lambda chosen: {},
) -> tuple[dict[str, Setting], dict[str, list[Run]], list[dict[str, object]]]:
    """Choose each contender's setting on validation rows, and measure it, and `more`, on the test rows.

    The choice is the setting with the highest mean accuracy at the end, the first of equals. Gives the
    choices, their runs, which TensorBoard shows too, and as lines for result.json what was tried.
    """

    def train_all(settings: Iterable[Setting], split: Split, seeds: int) -> dict[Setting, list[Run]]:
        jobs = {setting: [(setting, size, split, seed + n) for n in range(seeds)] for setting in settings}
        return report.train_all(train_once, jobs, split)

    searched = train_all((one for some in tried.values() for one in some), "validation", size.search_seeds)
    found = {setting: ending(runs).mean for setting, runs in searched.items()}
    chosen = {name: max(some, key=found.__getitem__) for name, some in tried.items()}
    chosen |= more(chosen)
    runs_of = train_all(chosen.values(), "test", size.seeds)
    tested = {name: runs_of[setting] for name, setting in chosen.items()}
    for name, runs in tested.items():
        report.curve(f"learning_rate/{name}", "Of every step; the first seed.", runs[0].lrs)
        losses, accuracies = mean_curve(run.losses for run in runs), mean_curve(r.accuracies for r in runs)
        report.curve(f"training_loss/{name}", "Of every epoch; mean over the seeds.", losses)
        report.curve(f"test_accuracy/{name}", "After every epoch; mean over the seeds.", accuracies)
    return chosen, tested, [{**vars(one), "validation_accuracy": acc} for one, acc in found.items()]


@dataclass(frozen=True)
class Ending:
    """Accuracy after the last epoch, never the best epoch, from several seeds."""

    accuracies: list[float]
    mean: float
    spread: float
    """Standard deviation over the seeds; NaN for one seed."""

    def lead(self, other: Ending) -> Lead:
        """How far this mean lies above the other."""
        return Lead(self.mean - other.mean, max(self.spread, other.spread))


@dataclass(frozen=True)
class Lead:
    """A difference of two means, and the larger of the two spreads to hold against it."""

    points: float
    """As a share, 0.01 for one percentage point."""
    spread: float

    def is_clear(self) -> bool:
        """More than the spread."""
        return self.points > self.spread

    def __str__(self) -> str:
        return f"{100 * self.points:+.1f} points (spread {100 * self.spread:.1f})"


def ending(runs: Sequence[Run]) -> Ending:
    """Mean and spread of the last epoch."""
    accuracies = [run.accuracies[-1] for run in runs]
    return Ending(accuracies, fmean(accuracies), stdev(accuracies) if len(runs) > 1 else math.nan)
