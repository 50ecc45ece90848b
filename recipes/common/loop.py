"""The training loop that the recipes share: forward, backward, step, and the schedule.

`recipes/trainer/training.py` is the one of `train.py`, which can be killed and runs on several processes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

from recipes.common.data import Data
from recipes.common.errors import TrainingDivergedError
from recipes.common.optimizers import needs_closure, set_mode, weights_of
from recipes.common.schedulers import Every, step_after_epoch, stepped_every

# Rows of one forward pass that is only measured: many, but no more than the memory takes.
EVAL_ROWS = 2000


@dataclass(frozen=True)
class Measured:
    """What one pass over the training rows showed."""

    epoch: int
    """1 for the first."""
    train_loss: float
    """Mean over the epoch's rows, each measured just before the step that used it."""
    loss: float
    """Mean over the rows that are only measured, after the epoch."""
    accuracy: float
    """Share of those rows that are classified rightly, 0 to 1."""


@dataclass(frozen=True)
class Step:
    """What one step showed before it was taken."""

    loss: float
    """Mean over the batch."""
    lr: float
    rows: Tensor
    """The numbers of the batch's rows."""


@dataclass(frozen=True)
class Epoch(Measured):
    """The same, with every step."""

    losses: list[float]
    """Of every step."""
    lrs: list[float]
    """Learning rate of every step."""

    @property
    def lr(self) -> float:
        """Of the last step."""
        return self.lrs[-1]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    scheduler: LRScheduler | None = None,
    every: Every | None = None,
) -> Iterator[Epoch]:
    """Train epoch by epoch; the caller looks at each one before the next begins.

    `every` says when the schedule is stepped: as torch documents it, if it is left out (`stepped_every`).
    Raises `TrainingDivergedError` if a loss is not finite, before a step is taken with it.
    """
    documented = stepped_every(scheduler, optimizer)  # refuses a schedule that would change nothing
    every = every or documented
    forever = steps(model, optimizer, data, batch_size, seed, scheduler if every == "batch" else None)
    rows = len(data.train_inputs)
    for epoch in range(1, epochs + 1):
        taken = list(islice(forever, math.ceil(rows / batch_size)))
        train_loss = sum(step.loss * len(step.rows) for step in taken) / rows
        set_mode(model, optimizer, training=False)
        loss, accuracy = evaluate(model, data.eval_inputs, data.eval_targets)
        if not math.isfinite(loss):  # the last step may have broken the weights
            raise TrainingDivergedError(f"loss is {loss} in epoch {epoch}, after step {len(taken)}")
        if scheduler is not None and every == "epoch":
            step_after_epoch(scheduler, train_loss)
        losses, lrs = [step.loss for step in taken], [step.lr for step in taken]
        yield Epoch(epoch, train_loss, loss, accuracy, losses, lrs)


def steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    batch_size: int,
    seed: int,
    scheduler: LRScheduler | None = None,
) -> Iterator[Step]:
    """Step after step without end, every epoch in a new order; the schedule goes on after each of them."""
    weights_of(model, optimizer)  # or those of another model would be trained
    with_closure = needs_closure(optimizer)  # LBFGS looks at several places before it goes to one
    shuffler = torch.Generator().manual_seed(seed)
    for epoch in count(1):
        order = torch.randperm(len(data.train_inputs), generator=shuffler).to(data.train_inputs.device)
        for number, rows in enumerate(order.split(batch_size), start=1):
            set_mode(model, optimizer, training=True)  # the caller may have measured
            compute_loss = partial(loss_with_gradient, model, optimizer, data, rows)
            step = Step(compute_loss().item(), float(optimizer.param_groups[0]["lr"]), rows)
            if not math.isfinite(step.loss):
                raise TrainingDivergedError(f"the loss is {step.loss} in epoch {epoch}, step {number}")
            optimizer.step(*([compute_loss] if with_closure else []))  # type: ignore[arg-type]  # a float
            if scheduler is not None:
                scheduler.step()
            yield step


def loss_with_gradient(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, rows: Tensor
) -> Tensor:
    """The mean loss of a batch; its gradient is in the parameters' `.grad`."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows])
    loss.backward()
    return loss


def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss and share of right answers, 0 of scores that are no numbers; a row of a text has many."""
    loss, answers = answers_to(model, inputs, targets)
    return loss, share_of_right(answers, targets) if math.isfinite(loss) else 0.0


@torch.no_grad()
def answers_to(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """Mean loss, and what the model takes each row for."""
    model.eval()
    loss, answers = 0.0, []
    for rows, right in zip(inputs.split(EVAL_ROWS), targets.split(EVAL_ROWS), strict=True):
        scores = model(rows)
        loss += F.cross_entropy(scores, right, reduction="sum").item()
        answers.append(scores.argmax(dim=1))
    return loss / targets.numel(), torch.cat(answers)


def share_of_right(answers: Tensor, targets: Tensor) -> float:
    """From 0 to 1."""
    return (answers == targets).double().mean().item()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one CPU thread: so small a network is not worth sharing.

    Two threads gain nothing here, and on a busy machine each waits for the other at every step: a run of two
    seconds was seen to take seventy. One thread also makes the weights independent of the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
