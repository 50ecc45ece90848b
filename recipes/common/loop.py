"""The training loop: forward, backward, step, and what is measured on the way.

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
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, ReduceLROnPlateau

from recipes.common.data import Data, DataName
from recipes.common.measure import EVAL_ROWS, Closeup, Epoch, Step, effective_step_sizes, evaluate, norm
from recipes.common.processes import World, load_whole_state, whole, whole_state

AutogradName = Literal["torch", "mini"]


class TrainingDivergedError(ArithmeticError):
    """The loss or a gradient is no longer finite: a step would only spread it over all weights."""


class Training:
    """A training that goes on step by step, can be saved after each, and goes on from there elsewhere.

    A cyclic schedule goes on after each batch. A plateau is looked for in the training loss of each epoch:
    the other rows may be the test's, and nothing is to be tuned by these.
    """

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
        self.epochs_done = 0
        self.steps_done = 0
        self.seconds = 0.0
        self.closeups: dict[str, Closeup] = {}
        """Every parameter in the last step of the last epoch."""
        self._batches: tuple[Tensor, ...] = ()
        self._numbers: dict[str, list[float]] = {}

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train_inputs) / self.batch_size)

    def step(self) -> Step:
        """Forward, backward, step, and after an epoch's last step the measuring."""
        started = time.perf_counter()
        batch = self.steps_done % self.steps_per_epoch
        if not self._batches:
            self._open_epoch()
        rows = self._batches[batch]
        mine = self.world.share(rows)
        place = f"epoch {self.epochs_done + 1}, step {batch + 1}"

        self.optimizer.zero_grad()
        throw_dice(self.device, self.seed, "step", self.steps_done, self.world.rank)
        with recorded_by(self.autograd, self.model), self._mixed_precision():
            scores = self.forward(self.data.train_inputs[mine])
            # Each process has the sum over its rows, and the mean over processes is taken of the gradients.
            loss = F.cross_entropy(scores, self.data.train_targets[mine], reduction="sum")
            loss = loss * (self.world.size / len(rows))
        (mean_loss,) = self.world.sum(loss.item() / self.world.size, device=self.device)
        if not math.isfinite(mean_loss):
            raise TrainingDivergedError(f"the loss is {mean_loss} in {place}")
        loss.backward()
        grad_norm = self._gradient_norm(place)

        last = batch + 1 == self.steps_per_epoch
        before = {name: w.detach().clone() for name, w in self.weights.items()} if last else {}
        sizes = effective_step_sizes(self.optimizer) if last else []
        wait_for(self.device)
        step_started = time.perf_counter()
        self.optimizer.step()
        wait_for(self.device)
        now = time.perf_counter()

        group = self.optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        for name, value in {
            "losses": mean_loss,
            "seconds": now - step_started,
            "lrs": float(group["lr"]),
            "momenta": momentum,
        }.items():
            if value is not None:
                self._numbers[name].append(float(value))
        lr = float(group["lr"])
        self.steps_done += 1
        self.seconds += time.perf_counter() - started
        if last:
            self.closeups = {
                name: self._closeup(w, before[name], size)
                for (name, w), size in zip(self.weights.items(), sizes, strict=True)
            }
        if isinstance(self.scheduler, CyclicLR):
            self.scheduler.step()
        epoch = self._close_epoch(grad_norm) if last else None
        return Step(self.steps_done, mean_loss, lr, momentum, grad_norm, epoch)

    def epochs(self, last: int) -> Iterator[Epoch]:
        """Go on to the end of the epoch `last`; the caller looks at each one before the next begins."""
        while self.epochs_done < last:
            if epoch := self.step().epoch:
                yield epoch

    def _open_epoch(self) -> None:
        """Divide the rows into batches, in an order that belongs to the seed and the epoch."""
        dice = torch.Generator().manual_seed(dice_seed(self.seed, "epoch", self.epochs_done))
        # Drawn on the CPU: the same order on every device.
        order = torch.randperm(len(self.data.train_inputs), generator=dice).to(self.device)
        self._batches = torch.split(order, self.batch_size)
        for name in ("losses", "seconds", "lrs", "momenta"):
            self._numbers.setdefault(name, [])
        self.model.train()

    def _close_epoch(self, grad_norm: float) -> Epoch:
        """Measure, and let go of the epoch's numbers."""
        numbers, batches = self._numbers, self._batches
        eval_loss, accuracy = evaluate(self.model, self.data.eval_inputs, self.data.eval_targets, self.world)
        change = norm(part.after - part.before for part in self.closeups.values())
        rows = sum(map(len, batches))
        result = Epoch(
            epoch=self.epochs_done + 1,
            train_loss=sum(x * len(b) for x, b in zip(numbers["losses"], batches, strict=True)) / rows,
            loss=eval_loss,
            accuracy=accuracy,
            lr=numbers["lrs"][-1],
            grad_norm=grad_norm,
            update_ratio=change / norm(part.before for part in self.closeups.values()),
            seconds=self.seconds,
            step_losses=numbers["losses"],
            step_seconds=numbers["seconds"],
            step_lrs=numbers["lrs"],
            step_momenta=numbers["momenta"],
        )
        # The last step may have broken the weights, and no further training loss would show it.
        for name in ("loss", "update_ratio"):
            if not math.isfinite(value := getattr(result, name)):
                raise TrainingDivergedError(
                    f"{name} is {value} in epoch {result.epoch}, after step {len(batches)}"
                )
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(result.train_loss)
        self.epochs_done += 1
        self._batches, self._numbers, self.seconds = (), {}, 0.0
        return result

    def _gradient_norm(self, place: str) -> float:
        """Length of the whole gradient, which is finite."""
        gradients = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
        length = float(whole(nn.utils.get_total_norm(gradients.values())))
        if math.isfinite(length):
            return length
        for name, gradient in gradients.items():
            if not whole(gradient).isfinite().all():
                raise TrainingDivergedError(f"the gradient of {name} is not finite in {place}")
        return norm(gradients.values())  # finite, but too long for the squares of float32

    def _closeup(self, weight: Tensor, before: Tensor, step_sizes: Tensor) -> Closeup:
        """What the step did to a parameter, and why."""
        return Closeup(
            before=whole(before),
            after=whole(weight.detach()),
            gradient=whole(weight.grad) if weight.grad is not None else torch.zeros_like(whole(before)),
            step_sizes=step_sizes,
        )

    @torch.no_grad()
    def predictions(self) -> Tensor:
        """The kind that the weights see in each of the measured rows. Every process must ask."""
        self.model.eval()
        inputs = self.data.eval_inputs.split(EVAL_ROWS)
        return torch.cat([self.model(some).argmax(dim=1) for some in inputs])

    def _mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where torch thinks it safe: it has float32's range, so no gradient needs scaling."""
        if self.amp:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: whole tensors, numbers and strings. Every process must ask."""
        return {
            "model": whole_state(self.model.state_dict()),
            "optimizer": whole_state(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "numbers": self._numbers,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        load_whole_state(self.model, self.optimizer, state["model"], state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epochs_done, self.steps_done = state["epochs_done"], state["steps_done"]
        self.seconds = state["seconds"]
        self._numbers = {name: list(values) for name, values in state["numbers"].items()}
        self._batches = ()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    autograd: AutogradName = "torch",
    scheduler: LRScheduler | None = None,
) -> Iterator[Epoch]:
    """Train epoch by epoch; the caller looks at each one before the next begins."""
    training = Training(
        model, optimizer, data, batch_size=batch_size, seed=seed, autograd=autograd, scheduler=scheduler
    )
    return training.epochs(epochs)


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


def threads_for(data: DataName) -> contextlib.AbstractContextManager[None]:
    """One for the small pictures, as many as torch likes for the others."""
    return one_thread() if data == "digits" else contextlib.nullcontext()


def wait_for(device: torch.device) -> None:
    """A GPU works behind the program's back: a clock is read only when it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
