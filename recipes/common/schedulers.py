"""The schedules by name, with options that suit the recipe."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import torchopt_course as optim

SchedulerName = Literal["none", "plateau", "cyclic"]

PATIENCE = 3
CYCLE_FACTOR = 10


def make_scheduler(
    name: SchedulerName, optimizer: Optimizer, *, lr: float, max_lr: float | None, steps_per_cycle: int
) -> LRScheduler | None:
    """The named schedule around the optimizer's learning rate `lr`.

    - plateau: a tenth of the rate after 4 epochs in which the training loss has not improved
    - cyclic: from the rate to `max_lr`, or ten times the rate, and back, each cycle half as high as the last;
      `python recipes/range_test.py` suggests such a range
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
            # Only a momentum that is in use: plain SGD is to stay plain SGD.
            cycle_momentum=bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults),
        )
    return None
