"""Ignite: an Engine with handlers that step the schedule, warm it up, and write checkpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("ignite", reason="Ignite is not installed: make test-hosts")

from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, LRScheduler, create_lr_scheduler_with_warmup
from ignite.handlers.param_scheduler import ReduceLROnPlateauScheduler

from tests.hosts.digits import (
    CLIP,
    LR,
    OPTIMIZERS,
    assert_fused,
    assert_same_weights,
    every_resume,
    every_schedule,
    loader,
    network,
    optimizer_and_schedule,
)


class Run:
    def __init__(self, whose: str, schedule_name: str) -> None:
        self.model = network()
        self.optimizer, self.schedule = optimizer_and_schedule(whose, self.model, schedule_name)
        self.trainer = Engine(self.update)
        if schedule_name == "CyclicLR":
            # Ignite's handler sets the rate before an iteration, and counts it after.
            self.handler: Any = LRScheduler(self.schedule)
            self.trainer.add_event_handler(Events.ITERATION_STARTED, self.handler)
        else:
            self.handler = self.schedule
            self.trainer.add_event_handler(
                Events.EPOCH_COMPLETED, lambda engine: self.schedule.step(engine.state.output)
            )

    def update(self, engine: Engine, batch: tuple[Tensor, Tensor]) -> float:
        images, labels = batch
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.item()

    def train(self, epochs: int) -> dict[str, Tensor]:
        self.trainer.run(loader(), max_epochs=epochs)
        return self.model.state_dict()

    @property
    def to_save(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.handler,
            "trainer": self.trainer,
        }


@every_schedule
def test_ignite_trains_to_torchs_weights(schedule: str) -> None:
    ours, theirs = (Run(whose, schedule) for whose in ("ours", "torch"))
    assert_same_weights(ours.train(5), theirs.train(5))
    assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(theirs.optimizer.param_groups[0]["lr"])
    assert ours.optimizer.param_groups[0]["lr"] < LR, "the schedule did nothing"
    assert_fused(ours.optimizer)


@cache
def uninterrupted(schedule: str) -> dict[str, Tensor]:
    return Run("torch", schedule).train(5)


@every_schedule
@every_resume
def test_ignite_resumes(schedule: str, first: str, second: str, tmp_path: Path) -> None:
    before = Run(first, schedule)
    saver = Checkpoint(before.to_save, DiskSaver(str(tmp_path)), n_saved=None)
    before.trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    before.train(3)
    after = Run(second, schedule)
    Checkpoint.load_objects(after.to_save, torch.load(tmp_path / saver.last_checkpoint))
    assert_same_weights(after.train(5), uninterrupted(schedule))


@pytest.mark.parametrize("handler", ["warmup", "plateau"])
def test_ignites_own_handlers_drive_our_optimizer(handler: str) -> None:
    weights = {}
    for whose in OPTIMIZERS:
        run = Run(whose, "CyclicLR")
        run.trainer = Engine(run.update)
        if handler == "warmup":
            attached = create_lr_scheduler_with_warmup(
                run.schedule, warmup_start_value=0.0, warmup_end_value=LR, warmup_duration=4
            )
            run.trainer.add_event_handler(Events.ITERATION_STARTED, attached)
        else:
            attached = ReduceLROnPlateauScheduler(
                run.optimizer, metric_name="loss", trainer=run.trainer, factor=0.5, patience=0, threshold=0.5
            )
            run.trainer.state.metrics["loss"] = 1.0
            run.trainer.add_event_handler(Events.EPOCH_COMPLETED, attached)
        weights[whose] = run.train(4)
    assert_same_weights(weights["ours"], weights["torch"])
