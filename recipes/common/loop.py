"""The training loop: forward, backward, step, and what is measured on the way."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, ReduceLROnPlateau

from recipes.common.data import Data

AutogradName = Literal["torch", "mini"]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows showed."""

    epoch: int
    """1 for the first."""
    train_loss: float
    """Mean over the epoch's rows, each measured just before the step that used it."""
    loss: float
    """Mean over the rows that are only measured, after the epoch."""
    accuracy: float
    """Share of those rows that are classified rightly, 0 to 1."""
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
    step_lrs: list[float] = field(default_factory=list)
    """Learning rate of every step."""
    step_momenta: list[float] = field(default_factory=list)
    """Momentum (of Adam: the first beta) of every step; empty if the optimizer has none."""


class TrainingDivergedError(ArithmeticError):
    """The loss or the weights are no longer finite: going on would only write NaN into every file."""


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
    """Train epoch by epoch; the caller looks at each one before the next begins.

    A cyclic schedule goes on after each batch. A plateau is looked for in the training loss of each epoch:
    the other rows may be the test's, and nothing is to be tuned by these.
    """
    device = data.train_inputs.device
    shuffler = torch.Generator().manual_seed(seed)  # on the CPU: the same order on every device
    weights = list(model.parameters())

    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        model.train()
        order = torch.randperm(len(data.train_inputs), generator=shuffler).to(device)
        batches = torch.split(order, batch_size)
        step_losses: list[float] = []
        step_seconds: list[float] = []
        step_lrs: list[float] = []
        step_momenta: list[float] = []
        before: list[Tensor] = []

        for step, rows in enumerate(batches, start=1):
            optimizer.zero_grad()
            with recorded_by(autograd, model):
                loss = F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows])
            step_losses.append(loss.item())
            if not math.isfinite(step_losses[-1]):
                raise TrainingDivergedError(f"the loss is {step_losses[-1]} in epoch {epoch}, step {step}")
            loss.backward()  # type: ignore[no-untyped-call]

            if step == len(batches):  # a copy of the weights once an epoch, not at every step
                before = [w.detach().clone() for w in weights]
            wait_for(device)
            step_started = time.perf_counter()
            optimizer.step()
            wait_for(device)
            step_seconds.append(time.perf_counter() - step_started)

            group = optimizer.param_groups[0]
            step_lrs.append(float(group["lr"]))
            if "betas" in group or "momentum" in group:
                step_momenta.append(float(group["betas"][0] if "betas" in group else group["momentum"]))
            if isinstance(scheduler, CyclicLR):
                scheduler.step()

        seconds = time.perf_counter() - started
        eval_loss, accuracy = evaluate(model, data.eval_inputs, data.eval_targets)
        change = [w.detach() - b for w, b in zip(weights, before, strict=True)]
        result = Epoch(
            epoch=epoch,
            train_loss=sum(x * len(rows) for x, rows in zip(step_losses, batches, strict=True)) / len(order),
            loss=eval_loss,
            accuracy=accuracy,
            lr=step_lrs[-1],
            grad_norm=norm(w.grad for w in weights if w.grad is not None),
            update_ratio=norm(change) / norm(before),
            seconds=seconds,
            step_losses=step_losses,
            step_seconds=step_seconds,
            step_lrs=step_lrs,
            step_momenta=step_momenta,
        )
        # The last step may have broken the weights, and no further training loss would show it.
        for name in ("loss", "grad_norm", "update_ratio"):
            if not math.isfinite(value := getattr(result, name)):
                raise TrainingDivergedError(f"{name} is {value} in epoch {epoch}, after step {len(batches)}")
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(result.train_loss)
        yield result


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


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    model.eval()
    scores = model(inputs)
    loss = F.cross_entropy(scores, targets)
    right = (scores.argmax(dim=1) == targets).double().mean()
    return loss.item(), right.item()


@torch.no_grad()
def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean length of all tensors laid end to end; in float64, where no float32 square overflows."""
    return float(torch.linalg.vector_norm(torch.cat([t.detach().flatten().double() for t in tensors])))


def wait_for(device: torch.device) -> None:
    """A GPU works behind the program's back: a clock is read only when it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def weights_sha256(model: nn.Module) -> str:
    """Digest of the bytes of all parameters, in order: equal for two runs only if every bit is."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
