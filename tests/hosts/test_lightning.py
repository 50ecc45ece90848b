"""Lightning's Trainer: automatic, manual and accumulated steps, clipping, mixed precision, checkpoints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning", reason="Lightning is not installed: make test-hosts")

import lightning
from lightning.pytorch.plugins import MixedPrecision

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

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`tensorboardX` has been removed"),
]


class Digits(lightning.LightningModule):
    def __init__(self, whose: str, schedule: str) -> None:
        super().__init__()
        self.whose, self.schedule = whose, schedule
        self.network = network()

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = optimizer_and_schedule(self.whose, self.network, self.schedule)
        if self.schedule == "CyclicLR":
            config = {"scheduler": scheduler, "interval": "step"}
        else:
            config = {"scheduler": scheduler, "monitor": "loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.network(images.to(self.network[0].weight.dtype)), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.loss(batch)


class Manual(Digits):
    """The module itself calls the optimizer, which Lightning has wrapped."""

    def __init__(self, whose: str, schedule: str) -> None:
        super().__init__(whose, schedule)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        self.clip_gradients(optimizer, gradient_clip_val=CLIP)
        optimizer.step()
        if self.schedule == "CyclicLR":
            self.lr_schedulers().step()

    def on_train_epoch_end(self) -> None:
        if self.schedule == "ReduceLROnPlateau":
            self.lr_schedulers().step(self.trainer.callback_metrics["loss"])


def trainer(epochs: int, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fit(module: Digits, epochs: int, checkpoint: Path | None = None, **options: Any) -> lightning.Trainer:
    options = {"gradient_clip_val": CLIP, "precision": "64-true", **options}
    host = trainer(epochs, **options)
    host.fit(module, loader(), ckpt_path=checkpoint)
    return host


@every_schedule
@pytest.mark.parametrize("kind", ["automatic", "manual", "accumulated"])
def test_lightning_trains_to_torchs_weights(schedule: str, kind: str) -> None:
    modules, rates = {}, {}
    for whose in ("ours", "torch"):
        modules[whose] = (Manual if kind == "manual" else Digits)(whose, schedule)
        options: dict[str, Any] = {"automatic": {}, "manual": {"gradient_clip_val": None}}.get(
            kind, {"accumulate_grad_batches": 2}
        )
        optimizer = fit(modules[whose], 5, **options).optimizers[0]
        rates[whose] = optimizer.param_groups[0]["lr"]
        if whose == "ours":
            assert_fused(optimizer)
    assert_same_weights(modules["ours"].state_dict(), modules["torch"].state_dict())
    assert rates["ours"] == pytest.approx(rates["torch"])
    assert rates["ours"] < LR, "the schedule did nothing"


@cache
def uninterrupted(schedule: str) -> dict[str, Tensor]:
    module = Digits("torch", schedule)
    fit(module, 5)
    return module.state_dict()


@every_schedule
@every_resume
def test_lightning_resumes(schedule: str, first: str, second: str, tmp_path: Path) -> None:
    fit(Digits(first, schedule), 3).save_checkpoint(tmp_path / "last.ckpt")
    resumed = Digits(second, schedule)
    fit(resumed, 5, tmp_path / "last.ckpt")
    assert_same_weights(resumed.state_dict(), uninterrupted(schedule))


@pytest.mark.parametrize("clip", [None, CLIP])
def test_lightning_scales_the_loss_in_mixed_precision(clip: float | None) -> None:
    """Lightning asks each optimizer whether it unscales gradients itself, and then refuses to clip them."""
    modules = {}
    for whose in ("ours", "torch"):
        modules[whose] = Digits(whose, "CyclicLR")
        modules[whose].network.float()
        # So large at first that the first steps overflow and are skipped.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        fit(modules[whose], 2, precision=None, plugins=[plugin], gradient_clip_val=clip)
        assert scaler.get_scale() < 2.0**24, "nothing overflowed"
    # Where float32 differs in the last bit, float16 now and then rounds to the next number.
    assert_same_weights(modules["ours"].state_dict(), modules["torch"].state_dict(), bound=2e-3)
