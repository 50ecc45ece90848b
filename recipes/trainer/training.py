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
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

from recipes.common.data import Data
from recipes.common.loop import EVAL_ROWS, sums
from recipes.common.optimizers import needs_closure, set_mode
from recipes.common.schedulers import step_after_epoch, stepped_every
from recipes.trainer.measure import Epoch, Meter
from recipes.trainer.processes import World, load_whole_state, whole_state

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
        world: World | None = None,
    ) -> None:
        """`forward` is called instead of `model`, and has its weights: compiled, or spread over processes."""
        self.model, self.optimizer, self.data, self.scheduler = model, optimizer, data, scheduler
        self.batch_size, self.seed, self.autograd, self.amp = batch_size, seed, autograd, amp
        self.forward = model if forward is None else forward
        self.world = World() if world is None else world
        self.device = data.train_inputs.device
        self.weights = dict(model.named_parameters())
        self.schedule_goes_on_every = stepped_every(scheduler, optimizer)
        self.epochs_done = self.steps_done = 0
        self.meter = Meter()
        self._batches: tuple[Tensor, ...] = ()

    # -- one step --------------------------------------------------------------------------------------------

    def step(self) -> Epoch | None:
        """Forward, backward, step, schedule; and after an epoch's last step the measuring."""
        rows, last = self._next_batch()
        began = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.loss(rows)
        loss.backward()
        self.meter.before_step(self, last)
        self.optimizer.step(*self._closure(rows))
        self.meter.after_step(self, began)
        if self.scheduler is not None and self.schedule_goes_on_every == "batch":
            self.scheduler.step()
        self.steps_done += 1
        return self._end_epoch() if last else None

    def loss(self, rows: Tensor) -> Tensor:
        """Mean loss of this process's share of a batch, for `backward` to average over the processes."""
        mine = self.world.share(rows)
        throw_dice(self.device, self.seed, "step", self.steps_done, self.world.rank)
        # bfloat16 where torch thinks it safe: it has float32's range, so no gradient needs scaling.
        mixed_precision = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)
        with recorded_by(self.autograd, self.model), mixed_precision:
            scores = self.forward(self.data.train_inputs[mine])
            loss = F.cross_entropy(scores, self.data.train_targets[mine], reduction="sum")
            loss = loss * (self.world.size / len(rows))  # shares may differ by a row
        (self.meter.loss,) = self.world.sum(loss.item() / self.world.size, device=self.device)
        return loss

    def _closure(self, rows: Tensor) -> list[Callable[[], float]]:
        """What `optimizer.step` asks for, if it does: LBFGS looks at several places before it goes to one."""

        def loss_with_gradient() -> float:
            self.optimizer.zero_grad()
            self.loss(rows).backward()
            return self.meter.loss

        return [loss_with_gradient] if needs_closure(self.optimizer) else []

    # -- epochs ----------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train_inputs) / self.batch_size)

    def epochs(self, last: int) -> Iterator[Epoch]:
        """Go on to the end of the epoch `last`; the caller looks at each one before the next begins."""
        while self.epochs_done < last:
            if epoch := self.step():
                yield epoch

    def _next_batch(self) -> tuple[Tensor, bool]:
        """The numbers of the batch's rows, in an order that belongs to seed and epoch; is it the last?"""
        if not self._batches:
            dice = torch.Generator().manual_seed(dice_seed(self.seed, "epoch", self.epochs_done))
            # Drawn on the CPU: the same order on every device.
            order = torch.randperm(len(self.data.train_inputs), generator=dice).to(self.device)
            self._batches = order.split(self.batch_size)
            set_mode(self.model, self.optimizer, training=True)
        number = self.steps_done % self.steps_per_epoch
        return self._batches[number], number + 1 == self.steps_per_epoch

    def _end_epoch(self) -> Epoch:
        """Measure, and let the schedule go on."""
        epoch = self.meter.end_epoch(self, list(map(len, self._batches)), *self.evaluate())
        if self.scheduler is not None and self.schedule_goes_on_every == "epoch":
            step_after_epoch(self.scheduler, epoch.train_loss)
        self.epochs_done += 1
        self._batches = ()
        return epoch

    def evaluate(self) -> tuple[float, float]:
        """Mean loss and share of right answers in the measured rows. Every process takes its share."""
        inputs, targets, world = self.data.eval_inputs, self.data.eval_targets, self.world
        set_mode(self.model, self.optimizer, training=False)
        mine = sums(self.model, inputs, targets, world.rank, world.size)
        loss, right = world.sum(*mine, device=self.device)
        return loss / len(inputs), right / len(inputs)

    @torch.no_grad()
    def predictions(self) -> Tensor:
        """The kind that the weights see in each of the measured rows. Every process must ask."""
        set_mode(self.model, self.optimizer, training=False)
        inputs = self.data.eval_inputs.split(EVAL_ROWS)
        return torch.cat([self.model(some).argmax(dim=1) for some in inputs])

    # -- to be left and taken up again -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: whole tensors, numbers and strings. Every process must ask."""
        return {
            "model": whole_state(self.model.state_dict()),
            "optimizer": whole_state(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "losses": self.meter.losses,
            "step_seconds": self.meter.step_seconds,
            "seconds": self.meter.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        load_whole_state(self.model, self.optimizer, state["model"], state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epochs_done, self.steps_done = state["epochs_done"], state["steps_done"]
        self.meter.losses, self.meter.step_seconds = list(state["losses"]), list(state["step_seconds"])
        self.meter.seconds = state["seconds"]
        self._batches = ()


def dice_seed(*place: object) -> int:
    """A number that belongs to a place in the training, and has nothing to do with that of its neighbours."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8], "big") >> 1


def throw_dice(device: torch.device, *place: object) -> None:
    """Let torch's random numbers begin anew for this place."""
    seed = dice_seed(*place)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


def recorded_by(autograd: AutogradName, model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Torch records by itself; ours wants to be asked. Either way `loss.backward()` writes the gradients."""
    if autograd == "torch":
        return contextlib.nullcontext()
    from torchopt_course.autograd import record

    return record(model)
