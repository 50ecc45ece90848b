"""Hugging Face Accelerate: everything prepared, gradients accumulated and clipped, the whole state saved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor, nn

pytest.importorskip("accelerate", reason="Accelerate is not installed: make test-hosts")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from tests.hosts.digits import (
    CLIP,
    LR,
    assert_fused,
    assert_same_weights,
    every_resume,
    every_schedule,
    loader,
    network,
    optimizer_and_schedule,
)


@pytest.fixture(autouse=True)
def own_state() -> Iterator[None]:
    """Accelerate keeps its state for the whole process, and other tests need another."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Run:
    """A training as in Accelerate's own examples."""

    def __init__(self, whose: str, schedule_name: str, accumulate: int = 1) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        self.schedule_name = schedule_name
        model = network()
        optimizer, schedule = optimizer_and_schedule(whose, model, schedule_name)
        prepared = self.accelerator.prepare(model, optimizer, loader(), schedule)
        self.model, self.optimizer, self.loader, self.schedule = prepared

    def train(self, epochs: int) -> dict[str, Tensor]:
        for _ in range(epochs):
            total = 0.0
            for images, labels in self.loader:
                with self.accelerator.accumulate(self.model):
                    loss = nn.functional.cross_entropy(self.model(images), labels)
                    self.accelerator.backward(loss)
                    if self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), CLIP)
                    self.optimizer.step()
                    if self.schedule_name == "CyclicLR":
                        self.schedule.step()
                    self.optimizer.zero_grad()
                total += loss.item()
            if self.schedule_name == "ReduceLROnPlateau":
                self.schedule.step(total)
        return self.accelerator.unwrap_model(self.model).state_dict()


@every_schedule
@pytest.mark.parametrize("accumulate", [1, 2])
def test_accelerate_trains_to_torchs_weights(schedule: str, accumulate: int) -> None:
    ours, theirs = (Run(whose, schedule, accumulate) for whose in ("ours", "torch"))
    assert_same_weights(ours.train(5), theirs.train(5))
    assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(theirs.optimizer.param_groups[0]["lr"])
    assert ours.optimizer.param_groups[0]["lr"] < LR, "the schedule did nothing"
    assert_fused(ours.optimizer.optimizer)


@cache
def uninterrupted(schedule: str) -> dict[str, Tensor]:
    return Run("torch", schedule).train(5)


@every_schedule
@every_resume
def test_accelerate_resumes(schedule: str, first: str, second: str, tmp_path: Path) -> None:
    before = Run(first, schedule)
    before.train(3)
    before.accelerator.save_state(str(tmp_path))
    after = Run(second, schedule)
    after.accelerator.load_state(str(tmp_path))
    assert_same_weights(after.train(2), uninterrupted(schedule))
