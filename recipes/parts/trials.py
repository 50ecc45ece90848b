"""One training in a comparison of optimizers, under the same conditions for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from statistics import median
from typing import Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import evaluate, steps
from recipes.common.model import ModelName, make_model
from recipes.parts.statistics import mean_curve

CONTENDERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": optim.SGD,
    "Momentum": optim.Momentum,
    "Nesterov": partial(optim.Momentum, nesterov=True),
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
    "Adam": optim.Adam,
    "AMSGrad": partial(optim.Adam, amsgrad=True),
    "AdamW": optim.AdamW,
}

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Task:
    """What is to be learned, the same for every contender."""

    data: DataName
    train_rows: int
    """A random part of the training rows; all, if there are not so many."""
    validation_rows: int
    """The first of the validation rows, likewise. The test rows are always all."""
    model: ModelName
    batch_size: int

    def load(self, split: Split) -> Data:
        """The rows to train on, and those of the split to measure on."""
        data = load_data(self.data, split)
        if split == "test":
            return data
        names = ("eval_inputs", "eval_targets", "eval_rows")
        first = {name: getattr(data, name)[: self.validation_rows] for name in names}
        return replace(data.first(self.train_rows), **first)


@dataclass(frozen=True)
class Trial:
    """What is tried: which optimizer, how, and for how long."""

    optimizer: str
    lr: float
    schedule: Schedule
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What a trial showed. Weights that diverged answer nothing rightly: accuracy 0."""

    steps: list[int]
    """The steps after which the validation rows were measured."""
    accuracy: list[float]
    """Share of right answers there, 0 to 1."""
    test_accuracy: float
    """Of the last weights, never the best; NaN if it was not asked for."""

    def steps_to(self, target: float) -> float:
        """The first step at which the validation accuracy was seen at the target, or infinity."""
        looks = zip(self.steps, self.accuracy, strict=True)
        return next((step for step, accuracy in looks if accuracy >= target), math.inf)


@dataclass(frozen=True)
class Budget:
    """How long everybody may train, and the validation accuracy that is a success."""

    epochs: int
    target: float

    def __str__(self) -> str:
        return "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"


@dataclass(frozen=True)
class Contest:
    """A situation in which all optimizers are compared."""

    budget: Budget
    tuned: bool
    """With the rate and schedule that did best, or with the optimizer's default rate."""

    def __str__(self) -> str:
        return f"{self.budget}, {'tuned' if self.tuned else 'default rate'}"


@dataclass(frozen=True)
class Result:
    """How one optimizer did in one contest."""

    contest: Contest
    choice: Trial
    outcomes: list[Outcome]
    """Of the choice, from fresh seeds."""

    @property
    def mean_curve(self) -> list[float]:
        """Validation accuracy at each look."""
        return mean_curve(outcome.accuracy for outcome in self.outcomes)

    @property
    def tests(self) -> list[float]:
        """Test accuracy of every seed."""
        return [outcome.test_accuracy for outcome in self.outcomes]

    @property
    def median_steps(self) -> float:
        """Steps to the target over the seeds; a miss counts as infinite, as in DeepOBS and AlgoPerf."""
        return median(outcome.steps_to(self.contest.budget.target) for outcome in self.outcomes)


def run_trial(task: Task, trial: Trial, seed: int, looks: int = 1, test: bool = False) -> Outcome:
    """Train from the seed's initial weights, with the rows in the seed's order.

    The validation rows are measured `looks` times, the last time at the end, and the test rows only for
    finished choices: with `test`, and the final weights.
    """
    data = task.load("validation")
    model = make_model(task.model, data, seed)
    optimizer = CONTENDERS[trial.optimizer](model.parameters(), lr=trial.lr)
    total = trial.epochs * math.ceil(len(data.train_rows) / task.batch_size)
    scheduler = CosineAnnealingLR(optimizer, total) if trial.schedule == "cosine" else None
    steps_looked = [round(total * look / looks) for look in range(1, looks + 1)]
    accuracy = dict.fromkeys(steps_looked, 0.0)
    training = steps(model, optimizer, data, task.batch_size, seed, scheduler)
    with suppress(TrainingDivergedError):
        for step, _ in enumerate(islice(training, total), start=1):
            if step in accuracy:
                _, accuracy[step] = evaluate(model, data.eval_inputs, data.eval_targets)
    test_accuracy = math.nan
    if test:
        kept = task.load("test")
        _, test_accuracy = evaluate(model, kept.eval_inputs, kept.eval_targets)
    return Outcome(steps_looked, list(accuracy.values()), test_accuracy)
