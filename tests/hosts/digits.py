"""What the hosts train: handwritten digits, a small network, ours or torch's optimizer with a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

import torchopt_course
from torchopt_course import lr_scheduler

BATCH, SAMPLES = 64, 384
BATCHES = SAMPLES // BATCH  # in an epoch
CLIP = 0.5  # the norm is larger in most steps
LR = 1e-2
OPTIMIZERS: dict[str, ModuleType] = {"ours": torchopt_course, "torch": torch.optim}
SCHEDULERS: dict[str, ModuleType] = {"ours": lr_scheduler, "torch": torch.optim.lr_scheduler}
SCHEDULES: dict[str, dict[str, Any]] = {
    # An epoch that does not halve the loss is a plateau: there are some in these few epochs.
    "ReduceLROnPlateau": {"factor": 0.5, "patience": 0, "threshold": 0.5},
    "CyclicLR": {"base_lr": 1e-3, "max_lr": LR, "step_size_up": 4, "mode": "triangular2"},
}
every_schedule = pytest.mark.parametrize("schedule", list(SCHEDULES))
# Who trains until the checkpoint, and who goes on from there.
every_resume = pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(a, b, id=f"{a}-to-{b}")
        for a, b in (("ours", "ours"), ("ours", "torch"), ("torch", "ours"))
    ],
)


def digits() -> TensorDataset:
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images[:SAMPLES] / 16), torch.tensor(labels[:SAMPLES]))


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """In the same order every time."""
    return DataLoader(digits(), batch_size=BATCH)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double()


def optimizer_and_schedule(whose: str, model: nn.Module, schedule: str) -> tuple[Optimizer, LRScheduler]:
    optimizer = OPTIMIZERS[whose].Adam(model.parameters(), lr=LR)
    return optimizer, getattr(SCHEDULERS[whose], schedule)(optimizer, **SCHEDULES[schedule])


def assert_same_weights(
    got: Mapping[str, Tensor], expected: Mapping[str, Tensor], bound: float = 1e-10
) -> None:
    assert list(got) == list(expected)
    for name, value in expected.items():
        difference = (got[name] - value).abs().max().item()
        assert difference <= bound * value.abs().max().item(), f"{name} is off by {difference}"


def assert_fused(optimizer: Optimizer, parameters: int = 4) -> None:
    """The host has not put our optimizer on a slower engine."""
    assert isinstance(optimizer, torchopt_course.ElementwiseOptimizer)
    report = optimizer.engine_report()
    assert report.splitlines()[1:] == [], report
    assert report.startswith(f"fused CPU engine: {parameters} parameters"), report
