"""The same optimizer twice, for a schedule of torch's and one of ours, and what the two have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import torchopt_course as oc

# Half of all examples schedule our optimizers, the other half torch's.
OPTIMIZERS: dict[str, Any] = {
    "SGD": oc.SGD,
    "Adam": oc.Adam,
    "RMSprop": oc.RMSprop,
    "torch.SGD": torch.optim.SGD,
    "torch.Adam": torch.optim.Adam,
    "torch.RMSprop": torch.optim.RMSprop,
}


def make_optimizer(name: str = "SGD", groups: int = 1, **options: Any) -> Optimizer:
    """An optimizer with a parameter in each group."""
    made: Optimizer = OPTIMIZERS[name](
        [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(groups)], **options
    )
    # The schedules are stepped without steps of the optimizer, and that is the whole point of these tests.
    made._opt_called = True  # type: ignore[attr-defined]
    return made


def rates(optimizer: Optimizer) -> list[tuple[float, ...]]:
    """What a schedule may change: learning rate, momentum, betas of each group."""
    return [
        tuple(map(float, (group["lr"], group.get("momentum", 0.0), *group.get("betas", ()))))
        for group in optimizer.param_groups
    ]


def flat(pairs: list[tuple[float, ...]]) -> list[float]:
    return [number for pair in pairs for number in pair]


def assert_same_rates(mine: Optimizer, theirs: Optimizer, when: Any = "") -> None:
    assert flat(rates(mine)) == pytest.approx(flat(rates(theirs)), rel=1e-12, abs=1e-12), when


def floats(values: list[Any]) -> list[float]:
    return [float(value) for value in values]


def step_as_trained(scheduler: LRScheduler) -> None:
    """One step of a batch schedule; the optimizer is pretended to have been stepped before."""
    scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
    scheduler.step()


class Halving:
    """A scale_fn that is an object, and so has something to save."""

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def __call__(self, x: float) -> float:
        return float(self.factor ** (x % 7))


def one_over(x: float) -> float:
    return 1 / (1 + x)
