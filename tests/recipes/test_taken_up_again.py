"""Which run the same command takes up again, and which it refuses to."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes.common.errors import FolderError, StoppedError
from recipes.train import Config
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run

from .interrupted import (
    SMALL,
)

pytestmark = pytest.mark.slow


def stopped_after_one_epoch(config: Config) -> None:
    """A run that has ended in the middle, with a checkpoint at the end of its first epoch."""

    def stop(epoch: Epoch) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError) as stopped:
        run(config, stop)
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adam", "lr": 0.01}, "a run with optimizer momentum, not adam"),
        ({"model": "lenet"}, "a run with model mlp, not lenet"),
        ({"split": "validation"}, "a run with split test, not validation"),
        ({"lr": 0.5}, "a run with lr 0.01, not 0.5"),
        ({"seed": 7}, "a run with seed 0, not 7"),
        ({"batch_size": 499}, "a run with batch size 500, not 499"),
        ({"scheduler": "plateau"}, "a run with scheduler none, not plateau"),
        ({"epochs": 0}, "--epochs must be"),
    ],
)
def test_another_run_is_not_taken_up(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    config = replace(SMALL, logdir=tmp_path / "run")
    stopped_after_one_epoch(config)
    before = {path: path.read_bytes() for path in config.logdir.iterdir()}
    with pytest.raises((FolderError, ValueError), match=words):
        run(replace(config, **change))
    assert {path: path.read_bytes() for path in config.logdir.iterdir()} == before


def test_other_data_under_the_same_name_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, logdir=tmp_path / "run")
    stopped_after_one_epoch(config)
    from recipes.trainer import run as runner

    def brighter(*arguments: Any) -> Any:
        inputs = load(*arguments).train_inputs.clone()
        inputs[7, 7] += 1 / 16
        return replace(load(*arguments), train_inputs=inputs)

    load = runner.load_data
    monkeypatch.setattr(runner, "load_data", brighter)
    with pytest.raises(FolderError, match="data sha256"):
        run(config)


def test_a_finished_run_is_found_finished_and_can_be_given_more_epochs(tmp_path: Path) -> None:
    config = replace(SMALL, logdir=tmp_path / "a")
    first = run(config)
    seen: list[Epoch] = []
    again = run(config, seen.append)
    assert not seen
    assert again.weights_sha256 == first.weights_sha256
    assert (tmp_path / "a" / "result.json").exists()

    longer = run(replace(config, epochs=4), seen.append)
    assert [epoch.epoch for epoch in seen] == [3, 4]
    at_once = run(replace(config, epochs=4, logdir=tmp_path / "b"))
    assert longer.weights_sha256 == at_once.weights_sha256 != first.weights_sha256
    with pytest.raises(FolderError, match="4 epochs, more than --epochs 2"):
        run(config)


def test_no_checkpoint_no_silent_restart(tmp_path: Path) -> None:
    config = replace(SMALL, logdir=tmp_path / "run")
    stopped_after_one_epoch(config)
    for path in config.logdir.glob("step-*"):
        path.unlink()
    with pytest.raises(FolderError, match="its checkpoints are missing"):
        run(config)
    assert run(replace(config, fresh=True)).epochs == 2


def test_a_lost_config_is_noticed(tmp_path: Path) -> None:
    config = replace(SMALL, logdir=tmp_path / "run")
    stopped_after_one_epoch(config)
    (config.logdir / "config.json").unlink()
    with pytest.raises(FolderError, match=r"config.json is missing"):
        run(config)
