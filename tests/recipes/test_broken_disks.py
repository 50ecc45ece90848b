"""A full, limited or read-only disk, a number that is not finite: named, and the checkpoint before stays."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.common import folder as files
from recipes.common.errors import FolderError, TrainingDivergedError
from recipes.train import Config
from recipes.trainer import training as training_module
from recipes.trainer.run import run, set_up

from ..processes import start
from .interrupted import (
    CONFIG,
    SMALL,
    saved_steps,
    words_of,
)
from .processes import train_by_command

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_a_full_disk_is_named_and_the_checkpoint_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, logdir=tmp_path / "run", save_every=0)
    write, calls = files.write_to_disk, [0]

    def full(path: Path, content: bytes) -> None:
        calls[0] += ".pt" in path.suffixes
        if calls[0] == 4:
            path.write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(files, "write_to_disk", full)
    with pytest.raises(FolderError, match=r"cannot write to .*run: No space left on device; make room"):
        run(config)
    assert not list(config.logdir.glob("*.draft"))
    monkeypatch.undo()
    assert saved_steps(config.logdir) == [1, 2]
    clean = run(replace(config, logdir=tmp_path / "clean"))
    assert run(config).weights_sha256 == clean.weights_sha256


@pytest.mark.parametrize(
    ("config", "limit"),
    [(CONFIG, 1_000), (CONFIG, 20_000), (replace(CONFIG, model="mlp", save_every=99.0), 41_000)],
    ids=["events", "checkpoint", "later events"],
)
def test_a_file_size_limit_ends_the_command_with_one_line(config: Config, limit: int, tmp_path: Path) -> None:
    # A real refusal by the kernel. TensorBoard's file is written by a thread of its own.
    output = tmp_path / "output"
    process = start(train_with_small_files, words_of(config, tmp_path / "run"), output, limit)
    process.join(60)
    assert process.exitcode == 2, output.read_text()
    said = output.read_text()
    assert said.count("\n") == 1
    assert "File too large" in said
    assert str(tmp_path / "run") in said


def train_with_small_files(words: list[str], output: Path, limit: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    train_by_command(words, output)


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs a folder that not even root can write in")
def test_a_read_only_folder_is_named() -> None:
    folder = Path("/sys/kernel/run")
    with pytest.raises(FolderError, match=f"cannot write to {folder}: .*; choose another folder"):
        run(replace(SMALL, logdir=folder))
    with pytest.raises(FolderError, match=f"cannot write to {folder.parent}: "):
        run(replace(SMALL, logdir=folder.parent))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_step(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, logdir=tmp_path / "run", save_every=0)
    place = "epoch 2, step 2"

    if what == "loss":
        honest, calls = training_module.F.cross_entropy, [0]

        def broken(*arguments: Any, **options: Any) -> torch.Tensor:
            calls[0] += torch.is_grad_enabled()
            return honest(*arguments, **options) * (torch.nan if calls[0] == 5 else 1)

        monkeypatch.setattr(training_module.F, "cross_entropy", broken)
        message = f"the loss is nan in {place}"
    else:
        training = set_up(config)
        calls = [0]

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            calls[0] += 1
            return gradient * torch.inf if calls[0] == 5 else gradient

        def hooked(*_: Any) -> Any:
            training.weights["output.bias"].register_hook(spoil)
            return training

        monkeypatch.setattr("recipes.trainer.run.set_up", hooked)
        message = f"the gradient of output.bias is not finite in {place}"

    with pytest.raises(TrainingDivergedError, match=message):
        run(config)
    assert saved_steps(config.logdir) == [3, 4]
    good = torch.load(config.logdir / "step-0000000004.torchopt_course.pt", weights_only=True)
    assert all(w.isfinite().all() for w in good["training"]["model"].values())
    monkeypatch.undo()
    assert run(config).weights_sha256 == run(replace(config, logdir=tmp_path / "clean")).weights_sha256
