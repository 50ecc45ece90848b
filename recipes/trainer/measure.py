"""What is measured: of a step, of an epoch, of the weights."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Measured
from recipes.trainer.processes import whole

if TYPE_CHECKING:
    from recipes.trainer.training import Training


@dataclass(frozen=True)
class Epoch(Measured):
    """The same, with what else a line of metrics.jsonl says."""

    lr: float
    """Learning rate of the epoch's last step."""
    grad_norm: float
    """Length of the whole gradient at the epoch's last step."""
    update_ratio: float
    """||change of the weights|| / ||weights|| in the epoch's last step; about 0.001 is healthy."""
    seconds: float
    """Time spent in training, without measuring and logging."""
    step_microseconds: float
    """Median time of one `optimizer.step()`."""
    first_step_seconds: float
    """Of the first one: a run's first compiles the optimizer, unless that lies in the cache."""


@dataclass(frozen=True)
class Result:
    """The outcome of a run; all but the model is in result.json."""

    optimizer: str
    lr: float
    scheduler: str
    seed: int
    epochs: int
    accuracy: float
    loss: float
    train_loss: float
    """These three of the last epoch, not the best."""
    seconds: float
    step_microseconds: float
    first_step_seconds: float
    torch_version: str
    weights_sha256: str
    model: nn.Module | None = field(default=None, repr=False)

    def summary(self) -> dict[str, str | int | float]:
        """The part that a file can hold."""
        return {name: value for name, value in vars(self).items() if name != "model"}


class Meter:
    """Looks on while a training goes through an epoch; what it has seen so far goes into checkpoints."""

    def __init__(self) -> None:
        self.loss = self.lr = self.grad_norm = math.nan
        """Of the last step; the loss is that of all processes together, before the step."""
        self.momentum: float | None = None
        """Likewise, of Adam the first beta; None if the optimizer has none."""
        self.update_ratio = math.nan
        self.histograms: dict[str, Tensor] = {}
        """Of the last step of the last epoch."""
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Let go of the last epoch's numbers."""
        self.loss_sum = self.seconds = 0.0
        self.step_seconds: list[float] = []

    @contextlib.contextmanager
    def watching(self, training: Training, loss: float, rows: int, began: float) -> Iterator[None]:
        """Look at loss, gradient, weights and clock before and after the update of an iteration.

        Raises `TrainingDivergedError`, before it, if the loss or the gradient is not finite. The last step of
        an epoch is looked at more closely.
        """
        place = f"epoch {training.epochs_done + 1}, step {len(self.step_seconds) + 1}"
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"the loss is {loss} in {place}; a smaller learning rate may help")
        self.loss = loss
        self.loss_sum += loss * rows
        self.grad_norm = gradient_norm(training.weights, place)
        group = training.optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group.get("momentum")
        self.lr, self.momentum = float(group["lr"]), None if momentum is None else float(momentum)
        before: dict[str, Tensor] = {}
        if training.step_ends_epoch:
            before = {name: weight.detach().clone() for name, weight in training.weights.items()}
            step_sizes = effective_step_sizes(training.optimizer)
        step_began = time.perf_counter()
        yield
        if training.device.type == "cuda":  # which works behind the program's back
            torch.cuda.synchronize(training.device)
        now = time.perf_counter()
        self.step_seconds.append(now - step_began)
        self.seconds += now - began
        if before:
            change = norm(weight - before[name] for name, weight in training.weights.items())
            self.update_ratio = change / norm(before.values())
            self.histograms = {}
            for name, weight in training.weights.items():
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                self.histograms[f"weights/{name}"] = numbers(weight)
                self.histograms[f"gradients/{name}"] = numbers(gradient)
                if len(step_sizes[weight]):  # decades: they differ by factors
                    self.histograms[f"log10_effective_step_size/{name}"] = step_sizes[weight].log10()

    def end_epoch(self, training: Training, loss: float, accuracy: float) -> Epoch:
        """Sum up."""
        epoch = Epoch(
            epoch=training.epochs_done + 1,
            train_loss=self.loss_sum / len(training.data.train_inputs),
            loss=loss,
            accuracy=accuracy,
            lr=self.lr,
            grad_norm=self.grad_norm,
            update_ratio=self.update_ratio,
            seconds=self.seconds,
            step_microseconds=1e6 * median(self.step_seconds),
            first_step_seconds=self.step_seconds[0],
        )
        # The last step may have broken the weights, and no further training loss would show it.
        for name, value in (("loss", epoch.loss), ("update ratio", epoch.update_ratio)):
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"the {name} is {value} in epoch {epoch.epoch}, after step {len(self.step_seconds)}; "
                    "a smaller learning rate may help"
                )
        self.begin_epoch()
        return epoch


def numbers(tensor: Tensor) -> Tensor:
    """All of a tensor, where a process holds a part or a sparse gradient leaves out its zeros."""
    return whole(tensor.detach()).to_dense()


def gradient_norm(weights: dict[str, nn.Parameter], place: str) -> float:
    """Length of the whole gradient, which is finite."""
    gradients = {
        name: w.grad.to_dense() if w.grad.is_sparse else w.grad  # of sparse ones torch 2.12 takes no norm
        for name, w in weights.items()
        if w.grad is not None
    }
    length = float(whole(nn.utils.get_total_norm(gradients.values())))
    if math.isfinite(length):
        return length
    for name, gradient in gradients.items():
        if not numbers(gradient).isfinite().all():
            raise TrainingDivergedError(f"the gradient of {name} is not finite in {place}")
    return norm(gradients.values())  # finite, but too long for the squares of float32


def effective_step_sizes(optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
    """How far each weight goes in the coming step for each unit of its gradient, for each of its parameters.

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
        with torch.random.fork_rng([p.device for p in params if p.is_cuda]):  # of a step with noise
            twin.step()
    except Exception:  # somebody else's optimizer may raise anything; the training itself does not need this
        return dict.fromkeys(params, torch.empty(0))
    sizes = {}
    for param, zero in zip(params, zeros, strict=True):
        state = twin.state.get(zero, {})
        averages = [state[name] for name in ("exp_avg", "momentum_buffer") if state.get(name) is not None]
        direction = (averages or [param.grad])[0]
        if direction is None:
            direction = torch.zeros_like(zero)
        step, direction = numbers(zero).abs(), numbers(direction).abs()
        moved = (direction > 0) & (step > 0)
        sizes[param] = step[moved] / direction[moved]
    return sizes


@torch.no_grad()
def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean length of all tensors laid end to end; in float64, where no float32 square overflows."""
    return float(torch.linalg.vector_norm(torch.cat([numbers(t).flatten().double() for t in tensors])))


def weights_sha256(model: nn.Module) -> str:
    """Digest of the bytes of all parameters, in order: equal for two runs only if every bit is."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        flat = whole(weight.detach()).cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
