"""What comparisons of schedules share: trainings from several seeds, the choice of a setting, the spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, TypeAlias

from torch import nn

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Epoch
from recipes.common.model import ModelName, make_model
from recipes.common.report import Report
from recipes.parts.statistics import mean_curve

Setting: TypeAlias = Any
"""A frozen dataclass: everything that can be turned in a recipe's schedules."""


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


def recorded(epochs: Iterable[Epoch], total: int) -> Run:
    """Let a training of `total` epochs run to its end.

    The epochs that are missing because it diverged have an infinite loss, and nothing right.
    """
    run = Run([], [], [])
    try:
        for epoch in epochs:
            run.lrs.extend(epoch.lrs)
            run.losses.append(epoch.train_loss)
            run.accuracies.append(epoch.accuracy)
    except TrainingDivergedError:
        missing = total - len(run.losses)
        run.losses.extend([math.inf] * missing)
        run.accuracies.extend([0.0] * missing)
    return run


def ends(runs: Sequence[Run]) -> list[float]:
    """Accuracy of every seed after the last epoch, never the best one."""
    return [run.accuracies[-1] for run in runs]


def lead(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[float, float]:
    """How far our mean at the end lies above theirs, and the larger of the two standard deviations."""
    return fmean(ends(ours)) - fmean(ends(theirs)), max(stdev(ends(ours)), stdev(ends(theirs)))


def points(lead: float, spread: float) -> str:
    """In percentage points."""
    return f"{100 * lead:+.1f} points (spread {100 * spread:.1f})"


TrainOnce: TypeAlias = Callable[[Setting, Size, Split, int], Run]
Row: TypeAlias = dict[str, Any]


def search(
    report: Report, train_once: TrainOnce, tried: Mapping[str, Sequence[Setting]], size: Size, seed: int
) -> tuple[dict[str, Setting], list[Row]]:
    """Each contender's choice on validation rows, and as lines for result.json what was tried.

    The choice is the setting with the highest mean accuracy at the end, the first of equals.
    """
    seeds = range(seed, seed + size.search_seeds)
    settings = [setting for some in tried.values() for setting in some]
    jobs = {setting: [(setting, size, "validation", one) for one in seeds] for setting in settings}
    searched = report.train_all(train_once, jobs, "validation")
    found = {setting: fmean(ends(runs)) for setting, runs in searched.items()}
    chosen = {name: max(some, key=found.__getitem__) for name, some in tried.items()}
    return chosen, [{**asdict(setting), "validation_accuracy": end} for setting, end in found.items()]


def measure(
    report: Report, train_once: TrainOnce, chosen: Mapping[str, Setting], size: Size, seed: int
) -> tuple[dict[str, list[Run]], list[Row]]:
    """The choices on the test rows: their trainings, which TensorBoard shows too, and lines for the table."""
    seeds = range(seed, seed + size.seeds)
    jobs = {name: [(setting, size, "test", one) for one in seeds] for name, setting in chosen.items()}
    tested = report.train_all(train_once, jobs, "test")
    for name, runs in tested.items():
        losses, accuracies = mean_curve(run.losses for run in runs), mean_curve(r.accuracies for r in runs)
        report.curve(f"learning_rate/{name}", "Of every step; the first seed.", runs[0].lrs)
        report.curve(f"training_loss/{name}", "Of every epoch; mean over the seeds.", losses)
        report.curve(f"test_accuracy/{name}", "After every epoch; mean over the seeds.", accuracies)
    return tested, [
        {
            "name": name,
            **asdict(chosen[name]),
            "accuracies": ends(runs),
            "mean": fmean(ends(runs)),
            "spread": stdev(ends(runs)),
        }
        for name, runs in tested.items()
    ]
