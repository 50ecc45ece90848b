"""The training of train.py: one step after the other, and it can be left after any of them.

Everything random is a function of the seed and of the place in the training: the order of the rows is drawn
anew for each epoch, dropout for each step. So a training can be left after any step and taken up again by
another process, or by another number of processes, and nothing has to be remembered about dice.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map_only

from recipes.common.data import Data
from recipes.common.loop import answers_to, share_of_right
from recipes.common.optimizers import needs_closure, set_mode, weights_of
from recipes.common.schedulers import step_after_epoch, stepped_every
from recipes.trainer.measure import Epoch, Meter
from recipes.trainer.processes import ALONE, World, load_whole_state, whole

AutogradName = Literal["torch", "mini"]


class Training:
    """A training that goes on step by step, can be saved after each, and goes on from there elsewhere."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Data,
        *,
        batch_size: int,
        seed: int,
        autograd: AutogradName = "torch",
        scheduler: LRScheduler | None = None,
        amp: bool = False,
        forward: Callable[[Tensor], Tensor] | None = None,
        world: World = ALONE,
    ) -> None:
        """`forward` is called instead of `model`, and has its weights: compiled, or spread over processes."""
        self.model, self.optimizer, self.data, self.scheduler = model, optimizer, data, scheduler
        self.batch_size, self.seed, self.autograd, self.amp = batch_size, seed, autograd, amp
        self.forward = model if forward is None else forward
        self.world = world
        self.device = data.train_inputs.device
        self.weights = weights_of(model, optimizer)
        self.with_closure = needs_closure(optimizer)  # LBFGS looks at several places before it goes to one
        self.schedule_goes_on_every = stepped_every(scheduler, optimizer)
        self.epochs_done = self.steps_done = 0
        self.meter = Meter()
        self.answers = torch.empty(0)
        """What the weights took each of the measured rows for after the last epoch."""
        self._batches: tuple[Tensor, ...] = ()

    # -- one step --------------------------------------------------------------------------------------------

    def step(self) -> Epoch | None:
        """Forward, backward, step, schedule; and after an epoch's last step the measuring."""
        rows = self._next_batch()
        began = time.perf_counter()
        compute_loss = partial(self.loss_with_gradient, rows)
        with self.meter.watching(self, compute_loss(), len(rows), began):
            self.optimizer.step(*([compute_loss] if self.with_closure else []))
        if self.scheduler is not None and self.schedule_goes_on_every == "batch":
            self.scheduler.step()
        epoch = self._end_epoch() if self.step_ends_epoch else None
        self.steps_done += 1
        return epoch

    def loss_with_gradient(self, rows: Tensor) -> float:
        """The mean loss of a batch; its gradient, the mean over all processes, is in the weights' `.grad`."""
        mine = rows[self.world.rank :: self.world.size]
        torch.manual_seed(dice_seed(self.seed, "step", self.steps_done, self.world.rank))
        self.optimizer.zero_grad()
        # bfloat16 where torch thinks it safe: it has float32's range, so no gradient needs scaling.
        mixed_precision = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)
        # torch records by itself, ours wants to be asked; either way `backward` writes the gradients.
        with recorded_by(self.autograd, self.model), mixed_precision:
            scores = self.forward(self.data.train_inputs[mine])
            loss = F.cross_entropy(scores, self.data.train_targets[mine], reduction="sum")
            loss = loss * (self.world.size / len(rows))  # shares may differ by a row
        loss.backward()
        (total,) = self.world.sum(loss.item(), device=self.device)
        return total / self.world.size

    # -- epochs ----------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train_inputs) / self.batch_size)

    @property
    def step_ends_epoch(self) -> bool:
        return (self.steps_done + 1) % self.steps_per_epoch == 0

    def epochs(self, last: int) -> Iterator[Epoch]:
        """Go on to the end of the epoch `last`; the caller looks at each one before the next begins."""
        while self.epochs_done < last:
            if epoch := self.step():
                yield epoch

    def _next_batch(self) -> Tensor:
        """The numbers of the batch's rows, in an order that belongs to seed and epoch."""
        if not self._batches:
            dice = torch.Generator().manual_seed(dice_seed(self.seed, "epoch", self.epochs_done))
            # Drawn on the CPU: the same order on every device.
            order = torch.randperm(len(self.data.train_inputs), generator=dice).to(self.device)
            self._batches = order.split(self.batch_size)
            set_mode(self.model, self.optimizer, training=True)
        return self._batches[self.steps_done % self.steps_per_epoch]

    def _end_epoch(self) -> Epoch:
        """Measure, and let the schedule go on."""
        set_mode(self.model, self.optimizer, training=False)
        inputs, targets = self.data.eval_inputs, self.data.eval_targets
        loss, self.answers = answers_to(self.model, inputs, targets)
        epoch = self.meter.end_epoch(self, loss, share_of_right(self.answers, targets))
        if self.scheduler is not None and self.schedule_goes_on_every == "epoch":
            step_after_epoch(self.scheduler, epoch.train_loss)
        self.epochs_done += 1
        self._batches = ()
        return epoch

    # -- to be left and taken up again -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: whole tensors, numbers and strings. Every process must ask."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "loss_sum": self.meter.loss_sum,
            "step_seconds": self.meter.step_seconds,
            "seconds": self.meter.seconds,
        }
        whole_tensors: dict[str, Any] = tree_map_only(Tensor, whole, state)
        return whole_tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        load_whole_state(self.model, self.optimizer, state["model"], state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epochs_done, self.steps_done = state["epochs_done"], state["steps_done"]
        for name in ("loss_sum", "step_seconds", "seconds"):
            setattr(self.meter, name, state[name])
        self._batches = ()


def dice_seed(*place: object) -> int:
    """A number that belongs to a place in the training, and has nothing to do with that of its neighbours."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8], "big") >> 1


def recorded_by(autograd: AutogradName, model: nn.Module) -> contextlib.AbstractContextManager[None]:
    if autograd == "torch":
        return contextlib.nullcontext()
    # Only here: once it is imported, each backward pass of torch's own looks for our variables first.
    from torchopt_course.autograd import record

    return record(model)
