"""The training loop that the recipes share: forward, backward, step, and the schedule.

`recipes/trainer/training.py` is the one of `train.py`, which can be killed and runs on several processes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

from recipes.common.data import Data
from recipes.common.errors import TrainingDivergedError
from recipes.common.optimizers import needs_closure, set_mode
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
class Epoch(Measured):
    """The same, with every step."""

    losses: list[float]
    """Of every step."""
    lrs: list[float]
    """Learning rate of every step."""


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
    every = every or stepped_every(scheduler, optimizer)
    with_closure = needs_closure(optimizer)  # LBFGS looks at several places before it goes to one
    shuffler = torch.Generator().manual_seed(seed)
    rows = len(data.train_inputs)
    for epoch in range(1, epochs + 1):
        losses, lrs, total = [], [], 0.0
        set_mode(model, optimizer, training=True)
        for batch in torch.randperm(rows, generator=shuffler).to(data.train_inputs.device).split(batch_size):
            compute_loss = partial(loss_with_gradient, model, optimizer, data, batch)
            loss = compute_loss()
            losses.append(loss.item())
            lrs.append(float(optimizer.param_groups[0]["lr"]))
            if not math.isfinite(losses[-1]):
                raise TrainingDivergedError(f"the loss is {losses[-1]} in epoch {epoch}, step {len(losses)}")
            optimizer.step(*([compute_loss] if with_closure else []))  # type: ignore[arg-type]  # a float
            if scheduler is not None and every == "batch":
                scheduler.step()
            total += losses[-1] * len(batch)
        set_mode(model, optimizer, training=False)
        loss_after, accuracy = evaluate(model, data.eval_inputs, data.eval_targets)
        if not math.isfinite(loss_after):  # the last step may have broken the weights
            raise TrainingDivergedError(f"loss is {loss_after} in epoch {epoch}, after step {len(losses)}")
        if scheduler is not None and every == "epoch":
            step_after_epoch(scheduler, total / rows)
        yield Epoch(epoch, total / rows, loss_after, accuracy, losses, lrs)


def loss_with_gradient(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, rows: Tensor
) -> Tensor:
    """The mean loss of a batch; its gradient is in the parameters' `.grad`."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows])
    loss.backward()
    return loss


def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss and share of right answers; a row of a text has many."""
    loss, answers = answers_to(model, inputs, targets)
    return loss, share_of_right(answers, targets)


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
