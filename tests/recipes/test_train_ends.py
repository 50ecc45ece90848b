"""How one run ends: a bad option, a diverging loss or Ctrl-C in one line; else with its result."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import recipes
from recipes.common.errors import OptionError, TrainingDivergedError
from recipes.train import Config, main
from recipes.trainer.run import run
from recipes.trainer.training import Training

from .left_behind import TRAINING_ROWS, event_files, events_of, metrics_of, result_of

ROOT = Path(recipes.__file__).parents[1]
TRAIN_PY = ROOT / "recipes" / "train.py"

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"optimizer": "sdg"}, "--optimizer"),
        ({"data": "mnist"}, "--data"),
        ({"model": "vgg"}, "--model"),
        ({"autograd": "jax"}, "--autograd"),
        ({"split": "train"}, "--split"),
        ({"scheduler": "cosine"}, "--scheduler"),
        ({"lr": -0.1}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"lr": math.inf}, "--lr"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"seed": -1}, "--seed"),
        ({"max_lr": 0.0005}, "--max-lr"),
        ({"cycle_epochs": 0}, "--cycle-epochs"),
        ({"save_every": math.nan}, "--save-every"),
        ({"device": "gpu"}, "--device"),
        ({"device": "meta"}, "--device"),
        ({"device": "cuda:99"}, "--device"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_written(
    change: dict[str, Any], option: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=option) as error:
        run(Config(**{"logdir": tmp_path / "run", **change}))
    assert str(next(iter(change.values()))) in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--optimizer", "sdg"], "invalid choice 'sdg' for argument '--optimizer'"),
        (["--lr", "fast"], "--lr"),
        (["--epochs", "3.5"], "--epochs"),
        (["--momentum", "0.9"], "--momentum has an effect only with --optimizer sgd or momentum or rmsprop"),
        (["--optimzer", "adam"], "Unrecognized options: --optimzer, adam; perhaps you meant --optimizer"),
        (["--epochs"], "--epochs"),
        (["--lr", "-1"], "--lr must be"),
        (["--epochs", "0"], "--epochs must be"),
        (["--logdir", "r\udce9n"], "no characters in this locale"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "cuda"], "0 CUDA devices"),
    ],
)
def test_a_bad_command_line_ends_in_one_line(
    words: list[str],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["train.py", "--logdir", str(tmp_path / "run"), *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("train.py: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["train.py", "--logdir", str(tmp_path / "file" / "run")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert str(tmp_path / "file" / "run") in capsys.readouterr().err


def test_a_diverging_run_names_epoch_and_step_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", f"train.py --optimizer sgd --lr 1e30 --logdir {tmp_path}".split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capsys.readouterr().err
    # Step 1 sees the initial weights and makes them some 1e28 large; the product of two layers overflows.
    assert "epoch 1, step 2" in said
    assert not (tmp_path / "result.json").exists()
    assert len(event_files(tmp_path)) == 1


def test_weights_broken_by_the_very_last_step_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="epoch 1, after step 1"):
        run(Config(optimizer="sgd", lr=1e38, epochs=1, batch_size=TRAINING_ROWS, logdir=tmp_path))
    assert metrics_of(tmp_path) == []


def test_ctrl_c_ends_in_one_line_and_readable_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pressed in the second epoch. (test_killed.py presses it in processes of their own.)"""
    steps = Training.step

    def pressing(training: Training) -> Any:
        if training.epochs_done == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return steps(training)

    monkeypatch.setattr(Training, "step", pressing)
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "100", "--logdir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "the same command goes on from there" in said.err
    assert len(metrics_of(tmp_path)) == 1
    assert len(events_of(tmp_path).Scalars("loss/train")) == 1
    assert not (tmp_path / "result.json").exists()


# ---------------------------------------------------------------- as a user sees it


def test_help_names_every_option_with_its_default_and_does_not_wait_for_what_only_a_run_needs(
    shell: Shell,
) -> None:
    done = shell("-X", "importtime", "-m", "recipes.train", "--help", PYTHONPATH=str(ROOT))
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    for field in dataclasses.fields(Config):
        about = words.partition(f" --{field.name.replace('_', '-')} ")[2]
        default = about.partition("(default: ")[2].partition(")")[0]
        assert default == str(field.default) or (default and field.default is None)
    assert "None" not in words  # what an option that is not given comes to is said
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"tensorboard", "sklearn"}


def test_from_the_shell_the_last_line_is_the_result(shell: Shell, tmp_path: Path) -> None:
    # A TensorFlow that happens to be installed must not be imported: it takes seconds and prints warnings.
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    done = shell(TRAIN_PY, "--epochs", "2", "--logdir", "my runs/a", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar in a pipe
    *_, tensorboard_line, last = done.stdout.splitlines()
    assert json.loads(last) == result_of(tmp_path / "my runs" / "a")
    assert tensorboard_line.endswith("--logdir 'my runs/a'")
