"""What is measured: of a step, of an epoch, of the weights."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Measured
from recipes.trainer.processes import whole

if TYPE_CHECKING:
    from recipes.trainer.training import Training


@dataclass(frozen=True)
class Epoch(Measured):
    """The same, with what else is kept of it."""

    lr: float
    """Learning rate of the epoch's last step."""
    grad_norm: float
    """Length of the whole gradient at the epoch's last step."""
    update_ratio: float
    """||change of the weights|| / ||weights|| in the epoch's last step; about 0.001 is healthy."""
    seconds: float
    """Time spent in training, without measuring and logging."""
    step_losses: list[float]
    """Loss of every step, in order."""
    step_seconds: list[float]
    """Time of every call of `optimizer.step()`, in order."""


@dataclass(frozen=True)
class Result:
    """The outcome of a run; all but the model is in result.json."""

    optimizer: str
    lr: float
    scheduler: str
    seed: int
    epochs: int
    accuracy: float
    """Share of the measured rows that the final weights classify rightly, 0 to 1."""
    loss: float
    """Mean loss of the measured rows under the final weights."""
    train_loss: float
    """Mean loss of the last epoch's training steps."""
    seconds: float
    """Time spent in training, without measuring and logging."""
    step_microseconds: float
    """Median time of one `optimizer.step()`."""
    first_step_seconds: float
    """Time of the first one: it compiles the optimizer, unless an earlier run left that in the cache."""
    torch_version: str
    weights_sha256: str
    model: nn.Module | None = field(default=None, repr=False)

    def summary(self) -> dict[str, str | int | float]:
        """The part that a file can hold."""
        return {name: value for name, value in vars(self).items() if name != "model"}

    @classmethod
    def of(cls, content: dict[str, Any] | None) -> Result | None:
        """The outcome that a file holds; None if it is not whole."""
        names = {part.name for part in fields(cls)} - {"model"}
        return cls(**content) if content is not None and content.keys() == names else None


@dataclass(frozen=True)
class Closeup:
    """One parameter in one step: what the step did to it, and why."""

    before: Tensor
    after: Tensor
    gradient: Tensor
    step_sizes: Tensor
    """See `effective_step_sizes`."""


class Meter:
    """Looks on while a training goes through an epoch; what it has seen so far goes into checkpoints."""

    def __init__(self) -> None:
        self.loss = math.nan
        """Of the batch at hand, the mean over all processes."""
        self.lr = self.grad_norm = math.nan
        """Of the last step."""
        self.momentum: float | None = None
        """Likewise, of Adam the first beta; None if the optimizer has none."""
        self.losses: list[float] = []
        self.step_seconds: list[float] = []
        self.seconds = 0.0
        self.closeups: dict[str, Closeup] = {}
        """Every parameter in the last step of the last epoch."""

    def before_step(self, training: Training, last: bool) -> None:
        """Look at loss, gradient and weights as they are right before the update.

        Raises `TrainingDivergedError` if the loss or the gradient is not finite. The last step of an epoch is
        looked at more closely.
        """
        place = f"epoch {training.epochs_done + 1}, step {len(self.losses) + 1}"
        if not math.isfinite(self.loss):
            raise TrainingDivergedError(
                f"the loss is {self.loss} in {place}; a smaller learning rate may help"
            )
        self.losses.append(self.loss)
        self.grad_norm = gradient_norm(training.weights, place)
        group = training.optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        self.lr, self.momentum = float(group["lr"]), None if momentum is None else float(momentum)
        self._before = {n: w.detach().clone() for n, w in training.weights.items()} if last else {}
        self._sizes = effective_step_sizes(training.optimizer) if last else []
        wait_for(training.device)
        self._step_began = time.perf_counter()

    def after_step(self, training: Training, began: float) -> None:
        """Look at the clock and the weights right after the update of an iteration that began then."""
        wait_for(training.device)
        now = time.perf_counter()
        self.step_seconds.append(now - self._step_began)
        self.seconds += now - began
        self.loss = self.losses[-1]  # LBFGS has looked elsewhere since
        if self._before:
            self.closeups = {
                name: Closeup(
                    before=whole(self._before[name]),
                    after=whole(weight.detach()),
                    gradient=whole(torch.zeros_like(weight) if weight.grad is None else weight.grad),
                    step_sizes=sizes,
                )
                for (name, weight), sizes in zip(training.weights.items(), self._sizes, strict=True)
            }

    def end_epoch(self, training: Training, row_counts: list[int], loss: float, accuracy: float) -> Epoch:
        """Sum up, and let go of the epoch's numbers."""
        parts = self.closeups.values()
        change = norm(part.after - part.before for part in parts)
        epoch = Epoch(
            epoch=training.epochs_done + 1,
            train_loss=sum(x * n for x, n in zip(self.losses, row_counts, strict=True)) / sum(row_counts),
            loss=loss,
            accuracy=accuracy,
            lr=self.lr,
            grad_norm=self.grad_norm,
            update_ratio=change / norm(part.before for part in parts),
            seconds=self.seconds,
            step_losses=self.losses,
            step_seconds=self.step_seconds,
        )
        # The last step may have broken the weights, and no further training loss would show it.
        for name, value in (("loss", epoch.loss), ("update ratio", epoch.update_ratio)):
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"the {name} is {value} in epoch {epoch.epoch}, after step {len(row_counts)}; "
                    "a smaller learning rate may help"
                )
        self.losses, self.step_seconds, self.seconds = [], [], 0.0
        return epoch


def gradient_norm(weights: dict[str, nn.Parameter], place: str) -> float:
    """Length of the whole gradient, which is finite."""
    gradients = {name: w.grad for name, w in weights.items() if w.grad is not None}
    length = float(whole(nn.utils.get_total_norm(gradients.values())))
    if math.isfinite(length):
        return length
    for name, gradient in gradients.items():
        if not whole(gradient).isfinite().all():
            raise TrainingDivergedError(f"the gradient of {name} is not finite in {place}")
    return norm(gradients.values())  # finite, but too long for the squares of float32


def effective_step_sizes(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """How far each weight goes in the coming step for each unit of its gradient, a tensor for each parameter.

    For each unit of the average gradient with the optimizers that follow one (Adam, momentum). Plain gradient
    descent has its learning rate everywhere; Adagrad, RMSprop and Adam give each weight its own.

    The optimizer itself is asked. A copy of it steps weights that are all 0, so that what they are afterwards
    is the step alone, without rounding against a large weight and without weight decay. Weights that nothing
    pulls, or that stand still, have no step size and are left out; so are all weights of an optimizer that
    cannot be copied, or steps with a closure only.
    """
    params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    zeros = [torch.zeros_like(p).requires_grad_() for p in params]
    try:
        # To copy.deepcopy a parameter has been copied already: as its zeros.
        twin = copy.deepcopy(optimizer, {id(p): zero for p, zero in zip(params, zeros, strict=True)})
        for param, zero in zip(params, zeros, strict=True):
            zero.grad = param.grad
        twin.step()
    except Exception:  # somebody else's optimizer may raise anything; the training itself does not need this
        return [torch.empty(0) for _ in params]
    sizes = []
    for param, zero in zip(params, zeros, strict=True):
        state = twin.state.get(zero, {})
        averages = [state[name] for name in ("exp_avg", "momentum_buffer") if state.get(name) is not None]
        direction = (averages or [param.grad])[0]
        if direction is None:
            direction = torch.zeros_like(zero)
        step, direction = whole(zero.detach()).abs(), whole(direction).abs()
        moved = (direction > 0) & (step > 0)
        sizes.append(step[moved] / direction[moved])
    return sizes


@torch.no_grad()
def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean length of all tensors laid end to end; in float64, where no float32 square overflows."""
    return float(torch.linalg.vector_norm(torch.cat([whole(t).detach().flatten().double() for t in tensors])))


def weights_sha256(model: nn.Module) -> str:
    """Digest of the bytes of all parameters, in order: equal for two runs only if every bit is."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        flat = whole(weight.detach()).cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def wait_for(device: torch.device) -> None:
    """A GPU works behind the program's back: a clock is read only when it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
