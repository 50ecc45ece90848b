"""One training in a comparison of optimizers, and the arithmetic by which trainings are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import fmean, median, stdev
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.loop import evaluate
from recipes.common.model import ModelName, make_model

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
Option = TypeVar("Option")


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


@dataclass(frozen=True)
class Trial:
    """One training: of which optimizer, how, and for how long."""

    task: Task
    optimizer: str
    lr: float | None
    """None: the optimizer's own default."""
    schedule: Schedule
    epochs: int
    looks: int
    """How often the validation rows are measured; the last time is at the end."""
    seed: int
    test: bool = False
    """Measure the final weights on the test rows as well: for finished choices only."""


@dataclass(frozen=True)
class Outcome:
    """What a trial showed. Weights that diverged answer nothing rightly: accuracy 0."""

    steps: list[int]
    """The steps after which the validation rows were measured."""
    accuracy: list[float]
    """Share of right answers there, 0 to 1."""
    test_accuracy: float
    """Of the last weights, never the best; NaN if it was not asked for."""


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

    name: str
    budget: Budget
    tuned: bool


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
        return [
            fmean(values) for values in zip(*(outcome.accuracy for outcome in self.outcomes), strict=True)
        ]

    @property
    def tests(self) -> list[float]:
        """Test accuracy of every seed."""
        return [outcome.test_accuracy for outcome in self.outcomes]


def run_trial(trial: Trial) -> Outcome:
    """Train from the seed's initial weights, with the rows in the seed's order."""
    data = rows_of(trial.task, "validation")
    torch.manual_seed(trial.seed)
    model = make_model(trial.task.model, data)
    options: dict[str, Any] = {} if trial.lr is None else {"lr": trial.lr}
    optimizer = CONTENDERS[trial.optimizer](model.parameters(), **options)
    total = trial.epochs * math.ceil(len(data.train_rows) / trial.task.batch_size)
    scheduler = LambdaLR(optimizer, lambda step: share_of_rate(trial.schedule, step / total))
    steps = [round(total * look / trial.looks) for look in range(1, trial.looks + 1)]
    accuracy = dict.fromkeys(steps, 0.0)

    for step, rows in batches(len(data.train_rows), trial.task.batch_size, total, trial.seed):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows])
        if not math.isfinite(loss.item()):
            break
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step in accuracy:
            accuracy[step] = right_answers(model, data)
            model.train()
    test = right_answers(model, rows_of(trial.task, "test")) if trial.test else math.nan
    return Outcome(steps, list(accuracy.values()), test)


@cache  # a worker runs many trials
def rows_of(task: Task, split: Split) -> Data:
    """The rows to train on, and those of the split to measure on."""
    data = load_data(task.data, split)
    if split == "test":
        return data
    return replace(
        data.first(task.train_rows),
        eval_inputs=data.eval_inputs[: task.validation_rows],
        eval_targets=data.eval_targets[: task.validation_rows],
        eval_rows=data.eval_rows[: task.validation_rows],
    )


def batches(rows: int, batch_size: int, steps: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Step by step the numbers of a batch's rows, every epoch in a new order."""
    shuffler = torch.Generator().manual_seed(seed)
    step = 0
    while True:
        for batch in torch.randperm(rows, generator=shuffler).split(batch_size):
            step += 1
            if step > steps:
                return
            yield step, batch


def share_of_rate(schedule: Schedule, progress: float) -> float:
    """What is left of the learning rate when that share of all steps is done."""
    return 1.0 if schedule == "constant" else (1 + math.cos(math.pi * progress)) / 2


def right_answers(model: torch.nn.Module, data: Data) -> float:
    """Share of right answers; 0 if the scores are not numbers any more, whatever is then the largest."""
    loss, accuracy = evaluate(model, data.eval_inputs, data.eval_targets)
    return accuracy if math.isfinite(loss) else 0.0


def best(accuracies: Mapping[Option, float]) -> Option:
    """The option with the highest accuracy; NaN is worse than any number, of equals the first wins."""
    return max(
        accuracies, key=lambda option: -math.inf if math.isnan(accuracies[option]) else accuracies[option]
    )


def steps_to(target: float, outcome: Outcome) -> float:
    """The first step at which the validation accuracy was seen at the target, or infinity."""
    reached = (step for step, value in zip(outcome.steps, outcome.accuracy, strict=True) if value >= target)
    return next(reached, math.inf)


def median_steps(target: float, outcomes: Sequence[Outcome]) -> float:
    """Over the seeds; a missed target counts as infinite, as in DeepOBS and AlgoPerf."""
    return median(steps_to(target, outcome) for outcome in outcomes)


def lead(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """How far our mean is above theirs, and the standard error of that difference (Welch)."""
    error = math.sqrt(stdev(ours) ** 2 / len(ours) + stdev(theirs) ** 2 / len(theirs))
    return fmean(ours) - fmean(theirs), error
