"""What lies in a folder is not replaced without being asked, and messages say only what is so."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import five_optimizers
from recipes.common import report as reports
from recipes.common.command_line import parse
from recipes.common.errors import AlreadyFinished, FolderError, StoppedError, UserError
from recipes.common.report import Report, SeededClaim, Verdict
from recipes.parts.schedule_runs import Run
from recipes.train import Config as TrainConfig
from recipes.trainer.run import run as train_run
from recipes.trainer.run_folder import RunFolder, warn_of_rounding


class Config(SeededClaim):
    """A recipe that has nothing to compute."""


def tiny(config: Config) -> None:
    with Report(config.logdir, "tiny", config) as report:
        report.open()
        report.curve("a/b", "Two points.", [1.0, 2.0])
        report.finish("table", [{"a": 1}], Verdict("the claim", True, "evidence"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    tiny(Config(size="smoke", logdir=folder))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_same_settings_say_finished(finished: Path) -> None:
    before = contents(finished)
    with pytest.raises(AlreadyFinished, match=r"(?s)says nothing about.*finished; --fresh computes it anew"):
        tiny(Config(size="smoke", logdir=finished))
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [({"size": "gallery"}, "a run with size smoke, not gallery"), ({"seed": 1}, "a run with seed 0, not 1")],
)
def test_other_settings_are_refused_with_the_difference(
    change: dict[str, Any], words: str, finished: Path
) -> None:
    before = contents(finished)
    with pytest.raises(FolderError, match=words):
        tiny(Config(**{"size": "smoke", "logdir": finished, **change}))
    assert contents(finished) == before


@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_an_outcome_that_cannot_be_read_is_not_computed_anew(
    name: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = contents(finished), Path.read_text

    def denied(path: Path, encoding: str | None = None) -> str:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(FolderError, match=f"cannot read {finished / name}: Permission denied"):
        tiny(Config(size="smoke", logdir=finished))
    assert contents(finished) == before


def test_fresh_replaces(finished: Path) -> None:
    theirs = [finished / name for name in ("curves/b/events.out.theirs", "curves/notes", "trainings/weights")]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    tiny(Config(size="smoke", seed=1, logdir=finished, fresh=True))
    assert json.loads((finished / "config.json").read_text())["seed"] == 1
    assert len(list(finished.glob("events.out*"))) == 1
    assert len(list(finished.glob("curves/b/*.torchopt_course"))) == 1
    assert [path.read_text() for path in theirs] == ["mine"] * 3


def slow(setting: int) -> Run:
    if setting == STOP_AT[0]:
        raise KeyboardInterrupt
    DONE.append(setting)
    return Run([0.1], [float(setting)], [0.5])


STOP_AT: list[int] = [2]
DONE: list[int] = []


def train_some(folder: Path, jobs: dict[str, list[tuple[int]]]) -> dict[str, list[Run]]:
    with Report(folder, "tiny", Config(size="smoke", logdir=folder)) as report:
        report.open()
        return report.train_all(slow, jobs, "x")


def test_an_interrupted_recipe_goes_on_with_the_trainings_that_are_done(tmp_path: Path) -> None:
    jobs = {"few": [(0,), (1,)], "one": [(2,)]}
    with pytest.raises(StoppedError, match="goes on: 2 trainings are kept") as stopped:
        train_some(tmp_path, jobs)
    assert stopped.value.exit_code == 130
    STOP_AT[0] = -1
    runs = train_some(tmp_path, jobs)
    assert {name: [run.losses for run in some] for name, some in runs.items()} == {
        "few": [[0.0], [1.0]],
        "one": [[2.0]],
    }
    assert DONE == [0, 1, 2]  # each once


def test_an_interrupted_recipe_without_trainings_says_that_it_starts_over(tmp_path: Path) -> None:
    with (
        pytest.raises(StoppedError, match="starts from the beginning"),
        Report(tmp_path, "tiny", Config(logdir=tmp_path)),
    ):
        raise KeyboardInterrupt


def test_five_optimizers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[TrainConfig] = []

    def short(config: TrainConfig, on_epoch: Callable[[Any], object]) -> Any:
        asked.append(config)
        return train_run(TrainConfig(**{**vars(config), "epochs": 1, "batch_size": 700}), on_epoch)

    monkeypatch.setattr(five_optimizers, "run", short)
    monkeypatch.setattr(sys, "argv", ["five_optimizers.py", "--logdir", str(tmp_path)])
    five_optimizers.main()
    assert "finished" not in capsys.readouterr().out
    before = {name: contents(tmp_path / name) for name in five_optimizers.FIVE}
    five_optimizers.main()
    assert "had these five already, finished; --fresh trains them anew" in capsys.readouterr().out
    assert {name: contents(tmp_path / name) for name in five_optimizers.FIVE} == before
    assert not any(config.fresh for config in asked)


def test_a_finished_training_is_not_touched_and_a_longer_one_keeps_its_outcome(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=700, logdir=tmp_path)
    train_run(config)
    before = contents(tmp_path)
    train_run(config)
    assert contents(tmp_path) == before
    train_run(TrainConfig(epochs=2, batch_size=700, logdir=tmp_path))
    assert (tmp_path / "result-1-epochs.json").read_bytes() == before["result.json"]


def test_stopped_with_fresh_says_without_fresh(tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=700, logdir=tmp_path, fresh=True)
    with pytest.raises(StoppedError, match="the same command without --fresh goes on"):
        train_run(config, lambda epoch: os.kill(os.getpid(), 15))


def test_another_number_of_threads_is_kept_and_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(epochs=2, batch_size=700, logdir=tmp_path)
    with contextlib.suppress(StoppedError):
        train_run(config, lambda epoch: os.kill(os.getpid(), 15))
    settings = json.loads((tmp_path / "config.json").read_text())
    assert (settings["threads"], settings["torch_version"]) == (1, torch.__version__)
    capsys.readouterr()
    warn_of_rounding(tmp_path, settings, {**settings, "threads": 2})
    said = capsys.readouterr().err
    assert "threads 2 instead of 1" in said
    assert "not bit for bit (OMP_NUM_THREADS=1 would)" in said
    warn_of_rounding(tmp_path, settings, settings)
    assert capsys.readouterr().err == ""


FULL_DISK = r"cannot write to {}: No space left on device; make room, and the same command .* goes on"


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("recipes.common.folder.write_to_disk", full)
    with pytest.raises(FolderError, match=FULL_DISK.format(tmp_path)):
        tiny(Config(size="smoke", logdir=tmp_path))


@pytest.mark.parametrize("folder", [Report, RunFolder])
def test_whatever_finds_the_disk_full_the_folder_and_the_cure_are_named(folder: Any, tmp_path: Path) -> None:
    arguments = (tmp_path, "tiny", Config()) if folder is Report else (tmp_path,)
    for error, words in (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), FULL_DISK.format(tmp_path)),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), f"{tmp_path}: Read-only .*; choose another folder"),
    ):
        with pytest.raises(FolderError, match=words), folder(*arguments):
            raise error
    with pytest.raises(BrokenPipeError), folder(*arguments):  # no disk's doing
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_a_finished_outcome_is_shown_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, training = tmp_path / "claim", TrainConfig(epochs=1, batch_size=700, logdir=tmp_path / "train")
    tiny(Config(size="smoke", logdir=claim))
    digest = train_run(training).weights_sha256

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # As on a read-only disk; permissions would not stop root.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(AlreadyFinished, match="finished; --fresh computes it anew"):
        tiny(Config(size="smoke", logdir=claim))
    assert train_run(training).weights_sha256 == digest
    with pytest.raises(FolderError, match=f"cannot write to {claim}: Read-only"):
        tiny(Config(size="smoke", logdir=claim, fresh=True))
    with pytest.raises(FolderError, match=f"cannot write to {training.logdir}: Read-only"):
        train_run(dataclasses.replace(training, fresh=True))


def test_missing_matplotlib_is_said_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reports.need.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "matplotlib" else honest(name)
    )
    for start in (
        lambda: tiny(Config(size="smoke", logdir=tmp_path / "a")),
        lambda: train_run(TrainConfig(logdir=tmp_path / "b")),
    ):
        with pytest.raises(
            UserError, match=r"matplotlib cannot be imported; pip install 'torchopt-course\[rec"
        ):
            start()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tyro", "tqdm"])
def test_what_the_command_line_is_made_of_is_asked_for_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.common import command_line

    monkeypatch.setitem(sys.modules, name, None)  # to import it is an error
    with pytest.raises(SystemExit, match=rf"{name} cannot be imported; pip install 'torchopt-course\[rec"):
        runpy.run_path(command_line.__file__)


def test_an_outcome_can_be_printed_where_an_encoding_has_no_plus_minus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Output that goes through a pipe is in the machine's encoding: ASCII, or Windows' cp1252."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["recipe.py"])
    parse(SeededClaim)
    print("87.8% ± 0.2%")
    assert written.getvalue() == b"87.8% \\xb1 0.2%\n"
