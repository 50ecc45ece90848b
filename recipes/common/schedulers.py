"""The schedules by name, with options that suit the recipe; and when a loop has to step any of torch's."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

import torchopt_course as optim

SchedulerName = Literal["none", "plateau", "cyclic"]
Every = Literal["batch", "epoch"]

PATIENCE = 3
CYCLE_FACTOR = 10
CYCLE_EPOCHS = 8


def make_scheduler(
    name: SchedulerName, optimizer: Optimizer, *, lr: float, max_lr: float | None, steps_per_cycle: int
) -> LRScheduler | None:
    """The named schedule around the optimizer's learning rate `lr`.

    - plateau: a tenth of the rate after 4 epochs in which the training loss has not improved
    - cyclic: from the rate to `max_lr`, or ten times the rate, and back, each cycle half as high as the last;
      `python recipes/range_test.py` suggests such a range

    Another schedule needs one more line here: the loops step it as torch documents it, see `stepped_every`.
    """
    if name == "plateau":
        return optim.ReduceLROnPlateau(optimizer, patience=PATIENCE)
    if name == "cyclic":
        return optim.CyclicLR(
            optimizer,
            base_lr=lr,
            max_lr=lr * CYCLE_FACTOR if max_lr is None else max_lr,
            step_size_up=max(steps_per_cycle // 2, 1),
            mode="triangular2",
            cycle_momentum=uses_momentum(optimizer),
        )
    return None


def uses_momentum(optimizer: Optimizer) -> bool:
    """Only a momentum that is in use is cycled: plain SGD is to stay plain SGD."""
    return bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)


def stepped_every(scheduler: LRScheduler | None, optimizer: Optimizer) -> Every:
    """When torch's documentation steps this schedule: after every batch, or after every epoch.

    Cyclical ones after every batch, all others after every epoch; those made of several (SequentialLR,
    ChainedScheduler) as their parts. Raises `TypeError` for what is no schedule, and `ValueError` for parts
    that disagree, for a plateau among them, which would get no loss, and for the schedule of another
    optimizer, which would change nothing.
    """
    if scheduler is None:
        return "epoch"
    name = type(scheduler).__name__
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"a scheduler of torch.optim.lr_scheduler is needed, not {name}")
    scheduled = getattr(scheduler, "optimizer", optimizer)
    # A wrapper, such as a Lookahead or `as_lr`, shows the groups of the optimizer that is scheduled.
    if not lists_of_params(scheduled) <= lists_of_params(optimizer):
        raise ValueError(f"{name} belongs to another optimizer than the one that is trained with")
    parts = getattr(scheduler, "_schedulers", [])
    if any(isinstance(part, ReduceLROnPlateau) for part in parts):
        raise ValueError(f"{name} hands no loss on to the ReduceLROnPlateau in it; step a plateau by itself")
    ways: set[Every] = {stepped_every(part, optimizer) for part in parts}
    if len(ways) > 1:
        raise ValueError(f"{name} has parts that are stepped after every batch and parts after every epoch")
    itself: Every = "batch" if isinstance(scheduler, (CyclicLR, OneCycleLR)) else "epoch"
    return ways.pop() if ways else itself


def lists_of_params(optimizer: Optimizer) -> set[int]:
    """Which groups these are: each has a list of its own."""
    return {id(group["params"]) for group in optimizer.param_groups}


def step_after_epoch(scheduler: LRScheduler, train_loss: float) -> None:
    """A plateau is looked for in the training loss: other rows may be the test's, and tune nothing."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(train_loss)
    else:
        scheduler.step()
