"""What comparisons of schedules share: trainings from several seeds, the choice of a setting, the spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Generic, TypeVar

import torch
from torch import nn

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Epoch
from recipes.common.model import ModelName, make_model
from recipes.common.report import Report

Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Run:
    """One training. The learning rate of every step; loss and accuracy of every epoch."""

    lrs: list[float]
    losses: list[float]
    """Mean over the training rows, each measured just before the step that used it."""
    accuracies: list[float]
    """Of the rows that are only measured."""

    def diverged(self, epochs: int) -> Run:
        """The same with the epochs that are missing: an infinite loss, nothing right."""
        missing = epochs - len(self.losses)
        return Run(self.lrs, self.losses + [math.inf] * missing, self.accuracies + [0.0] * missing)


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

    @cache  # noqa: B019  # a worker trains many times on the same rows
    def load(self, split: Split) -> Data:
        """The rows."""
        data = load_data(self.data, split)
        return data.first(self.rows or len(data.train_rows))

    def model_and_optimizer(self, data: Data, lr: float, seed: int) -> tuple[nn.Module, optim.SGD]:
        """The network with its initial weights, and the optimizer: the same for every schedule."""
        torch.manual_seed(seed)
        model = make_model(self.model, data)
        return model, optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)


@dataclass(frozen=True)
class Job(Generic[Setting]):
    """A training to do."""

    setting: Setting
    size: Size
    split: Split
    seed: int


def recorded(
    epochs: Iterable[Epoch], total: int, after: Callable[[Epoch], object] = lambda epoch: None
) -> Run:
    """Let a training of `total` epochs run to its end, or until it diverges; `after` sees every epoch."""
    run = Run([], [], [])
    try:
        for epoch in epochs:
            run.lrs.extend(epoch.lrs)
            run.losses.append(epoch.train_loss)
            run.accuracies.append(epoch.accuracy)
            after(epoch)
    except TrainingDivergedError:
        return run.diverged(total)
    return run


def train_all(
    report: Report,
    train_once: Callable[[Job[Setting]], Run],
    settings: Sequence[Setting],
    size: Size,
    split: Split,
    seeds: Sequence[int],
) -> list[list[Run]]:
    """For each setting the runs from all seeds."""
    jobs = [Job(setting, size, split, seed) for setting in settings for seed in seeds]
    runs = report.train_all(train_once, jobs, split, parallel=size.data != "digits")
    return [runs[i : i + len(seeds)] for i in range(0, len(runs), len(seeds))]


def compete(
    report: Report,
    train_once: Callable[[Job[Setting]], Run],
    tried: dict[str, list[Setting]],
    size: Size,
    seed: int,
    more: Callable[[dict[str, Setting]], dict[str, Setting]] = lambda chosen: {},
) -> tuple[dict[str, Setting], dict[str, list[Run]], list[dict[str, object]]]:
    """Choose each contender's setting on validation rows, and measure it, and `more`, on the test rows.

    Gives the choices, their runs, and as lines for result.json what was tried.
    """
    chosen, accuracies = search(report, train_once, tried, size, seed)
    chosen |= more(chosen)
    seeds = range(seed, seed + size.seeds)
    tested = train_all(report, train_once, list(chosen.values()), size, "test", seeds)
    searched = [{**vars(one), "validation_accuracy": accuracy} for one, accuracy in accuracies.items()]
    return chosen, dict(zip(chosen, tested, strict=True)), searched


def search(
    report: Report,
    train_once: Callable[[Job[Setting]], Run],
    tried: dict[str, list[Setting]],
    size: Size,
    seed: int,
) -> tuple[dict[str, Setting], dict[Setting, float]]:
    """The best setting of each contender, and the mean validation accuracy of all that were tried."""
    settings = [setting for some in tried.values() for setting in some]
    runs = train_all(report, train_once, settings, size, "validation", range(seed, seed + size.search_seeds))
    accuracies = {setting: ending(same).mean for setting, same in zip(settings, runs, strict=True)}
    return {name: choose({one: accuracies[one] for one in some}) for name, some in tried.items()}, accuracies


def choose(accuracies: dict[Setting, float]) -> Setting:
    """The setting with the highest accuracy; the first of equals."""
    return max(accuracies, key=accuracies.__getitem__)


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Mean over the seeds, epoch by epoch."""
    return [fmean(values) for values in zip(*curves, strict=True)]


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


def write_curves(report: Report, tested: dict[str, list[Run]]) -> None:
    """TensorBoard's curves: the rate of the first seed, means of the others over all seeds."""
    for name, runs in tested.items():
        losses, accuracies = (mean_curve([getattr(run, n) for run in runs]) for n in ("losses", "accuracies"))
        for tag, words, values in (
            ("learning_rate", "Of every step; the first seed.", runs[0].lrs),
            ("training_loss", "Of every epoch; mean over the seeds.", losses),
            ("test_accuracy", "After every epoch; mean over the seeds.", accuracies),
        ):
            report.curve(f"{tag}/{name}", words, values)


def ending(runs: Sequence[Run]) -> Ending:
    """Mean and spread of the last epoch."""
    accuracies = [run.accuracies[-1] for run in runs]
    return Ending(accuracies, fmean(accuracies), stdev(accuracies) if len(runs) > 1 else math.nan)
