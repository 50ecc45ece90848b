"""Hugging Face's Trainer: given our optimizer and schedule, or our class, which it constructs itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

pytest.importorskip("transformers", reason="Transformers is not installed: make test-hosts")
pytest.importorskip("accelerate", reason="Accelerate is not installed: make test-hosts")

from transformers import Trainer, TrainingArguments

from tests.hosts.digits import (
    BATCH,
    CLIP,
    LR,
    OPTIMIZERS,
    assert_fused,
    assert_same_weights,
    digits,
    every_resume,
    every_schedule,
    network,
    optimizer_and_schedule,
)


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def trainer(
    folder: Path, epochs: int, schedule: str | None = None, whose: str = "", **options: Any
) -> Trainer:
    model = Digits()
    if schedule is not None:
        options["optimizers"] = optimizer_and_schedule(whose, model, schedule)
    data = [{"images": images, "labels": labels} for images, labels in digits()]
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=len(data),
        learning_rate=LR,
        max_grad_norm=CLIP,
        eval_strategy="epoch",  # the Trainer steps ReduceLROnPlateau with what an evaluation measured
        metric_for_best_model="loss",
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    return Trainer(model, arguments, train_dataset=data, eval_dataset=data, **options)


@every_schedule
def test_trainer_trains_to_torchs_weights(schedule: str, tmp_path: Path) -> None:
    runs = {whose: trainer(tmp_path / whose, 5, schedule, whose) for whose in ("ours", "torch")}
    for run in runs.values():
        run.train()
    assert_same_weights(runs["ours"].model.state_dict(), runs["torch"].model.state_dict())
    ours, theirs = (run.optimizer.param_groups[0]["lr"] for run in runs.values())
    assert ours == pytest.approx(theirs)
    assert ours < LR, "the schedule did nothing"
    assert_fused(runs["ours"].optimizer.optimizer)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Tensor]]:
    @cache
    def weights(schedule: str) -> dict[str, Tensor]:
        run = trainer(tmp_path_factory.mktemp(schedule), 5, schedule, "torch")
        run.train()
        return run.model.state_dict()

    return weights


@every_schedule
@every_resume
def test_trainer_resumes(
    schedule: str,
    first: str,
    second: str,
    tmp_path: Path,
    uninterrupted: Callable[[str], dict[str, Tensor]],
) -> None:
    trainer(tmp_path, 3, schedule, first).train()
    resumed = trainer(tmp_path, 5, schedule, second)
    resumed.train(resume_from_checkpoint=True)
    assert_same_weights(resumed.model.state_dict(), uninterrupted(schedule))


def test_trainer_constructs_our_class(tmp_path: Path) -> None:
    """With its own parameter groups, weight decay for matrices only, and its own linear schedule."""
    weights = {}
    for whose, module in OPTIMIZERS.items():
        choice = (module.AdamW, {"lr": LR, "betas": (0.8, 0.99)})
        run = trainer(tmp_path / whose, 3, optimizer_cls_and_kwargs=choice)
        run.train()
        weights[whose] = run.model.state_dict()
    assert_same_weights(weights["ours"], weights["torch"])
