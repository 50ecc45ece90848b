"""What is measured: of a step, of an epoch, of a model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.common.processes import World, whole

# Rows of one forward pass that is only measured: many, but no more than the memory takes.
EVAL_ROWS = 2000


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


@dataclass(frozen=True)
class Step:
    """What one step showed."""

    step: int
    """1 for the first of the training."""
    loss: float
    lr: float
    momentum: float | None
    grad_norm: float
    epoch: Epoch | None
    """The epoch that this step ended."""


@dataclass(frozen=True)
class Closeup:
    """One parameter in one step."""

    before: Tensor
    after: Tensor
    gradient: Tensor
    step_sizes: Tensor
    """See `effective_step_sizes`."""


def effective_step_sizes(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """How far each weight goes in the coming step for each unit of its gradient, a tensor for each parameter.

    For each unit of the average gradient with the optimizers that follow one (Adam, momentum). Plain gradient
    descent has its learning rate everywhere; Adagrad, RMSprop and Adam give each weight its own.

    The optimizer itself is asked. A twin with the same state steps weights that are all 0, so that what they
    are afterwards is the step alone, without rounding against a large weight and without weight decay.
    Weights that nothing pulls, or that stand still, have no step size and are left out.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    zeros = {p: torch.zeros_like(p).requires_grad_() for p in params}
    groups = [{**group, "params": [zeros[p] for p in group["params"]]} for group in optimizer.param_groups]
    twin = type(optimizer)(groups)  # type: ignore[call-arg]  # all options stand in the groups
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param, zero in zeros.items():
        zero.grad = param.grad
    twin.step()
    sizes = []
    for param, zero in zeros.items():
        state = twin.state.get(zero, {})
        direction = next(
            (state[name] for name in ("exp_avg", "momentum_buffer") if name in state), param.grad
        )
        if direction is None:
            direction = torch.zeros_like(zero)
        step, direction = whole(zero.detach()).abs(), whole(direction).abs()
        moved = (direction > 0) & (step > 0)
        sizes.append(step[moved] / direction[moved])
    return sizes


@torch.no_grad()
def evaluate(
    model: nn.Module, inputs: Tensor, targets: Tensor, world: World | None = None
) -> tuple[float, float]:
    """Mean loss and share of right answers."""
    world = World() if world is None else world
    model.eval()
    loss = right = 0.0
    for rows in torch.arange(len(inputs), device=inputs.device).split(EVAL_ROWS):
        mine = world.share(rows)
        scores = model(inputs[mine])
        loss += F.cross_entropy(scores, targets[mine], reduction="sum").item()
        right += (scores.argmax(dim=1) == targets[mine]).sum().item()
    loss, right = world.sum(loss, right, device=inputs.device)
    return loss / len(inputs), right / len(inputs)


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
