"""A run that is killed or stopped at any instant goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes.common import folder as files
from recipes.common.errors import FolderError
from recipes.trainer.run import run

from ..processes import start
from .interrupted import (
    CONFIG,
    STEPS,
    assert_same_run,
    curves,
    kill_at_random,
    saved_steps,
    wait_until,
    words_of,
)
from .processes import train_by_command

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start(train_by_command, words_of(CONFIG, folder / "run"), folder / "output")
    process.join(120)
    assert process.exitcode == 0, (folder / "output").read_text()
    return folder / "run"


def test_curves_have_a_point_for_every_step(uninterrupted: Path) -> None:
    seen = curves(uninterrupted)
    assert [step for step, _ in seen["loss/train_step"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in seen["loss/train"]] == list(range(1, CONFIG.epochs + 1))


def test_kill_9_at_any_instant(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    print("killed at steps", kill_at_random(folder, 4, random.Random()))
    assert_same_run(folder, uninterrupted)
    assert len(saved_steps(folder)) == 2
    assert not list(folder.glob("*.draft"))


@pytest.mark.parametrize("moment", ["before the folder", "draft", "named", "config", "result"])
def test_killed_at_the_worst_moments(moment: str, uninterrupted: Path, tmp_path: Path) -> None:
    # The process kills itself: while a checkpoint is half-written, between its name and the end, ...
    folder, output = tmp_path / "run", tmp_path / "output"
    process = start(train_and_die, words_of(CONFIG, folder), output, moment)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, output.read_text()
    assert not (folder / "result.json").exists()
    process = start(train_by_command, words_of(CONFIG, folder), output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    assert_same_run(folder, uninterrupted)


def test_what_was_logged_after_the_last_checkpoint_is_not_logged_twice(
    uninterrupted: Path, tmp_path: Path
) -> None:
    # Dies with an epoch in the logs, twice: the second time in an event file that no checkpoint knows.
    folder, output = tmp_path / "run", tmp_path / "output"
    for goal in (1, 2):
        words = words_of(replace(CONFIG, save_every=3600), folder)
        process = start(train_and_die, words, output, "logged")
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, output.read_text()
        assert (folder / "metrics.jsonl").read_text().count("\n") == 1
        assert saved_steps(folder) == [0]
        assert len(list(folder.glob("events.out*"))) == goal
    process = start(train_by_command, words_of(CONFIG, folder), output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    assert_same_run(folder, uninterrupted)


def train_and_die(words: list[str], output: Path, moment: str) -> None:
    """Train, and be killed at a moment that chance would hardly find."""
    from recipes.trainer import run_folder

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    write, replace_, calls = files.write_to_disk, os.replace, [0]

    def half_a_file(path: Path, content: bytes) -> None:
        calls[0] += ".pt" in path.suffixes
        if calls[0] == 9:
            path.write_bytes(content[: len(content) // 2])
            die()
        write(path, content)

    def replace_and_die(source: Path, target: Path) -> None:
        calls[0] += 1
        wanted = {"named": calls[0] == 9, "config": target.name == "config.json"}
        wanted["result"] = target.name == "result.json"
        if wanted[moment] and moment != "named":
            die()
        replace_(source, target)
        if wanted[moment]:
            die()

    if moment == "logged":
        log = run_folder.RunFolder.log

        def log_and_die(folder: Any, training: Any, epoch: Any) -> None:
            log(folder, training, epoch)
            if epoch:
                die()

        run_folder.RunFolder.log = log_and_die  # type: ignore[method-assign]
    elif moment == "before the folder":
        run_folder.Board = die  # type: ignore[assignment, misc]
    elif moment == "draft":
        files.write_to_disk = half_a_file
    else:
        os.replace = replace_and_die  # type: ignore[assignment]
    train_by_command(words, output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_finish_the_step_and_save(
    number: signal.Signals, code: int, uninterrupted: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "run", tmp_path / "output"
    patient = replace(CONFIG, save_every=3600)  # only the signal can have caused a checkpoint
    process = start(train_by_command, words_of(patient, folder), output)
    wait_until(lambda: has_lines(folder / "metrics.jsonl", 1), process, output)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == code, output.read_text()
    last = output.read_text().splitlines()[-1]
    assert "the same command goes on from there" in last
    assert saved_steps(folder)[-1] >= 10
    assert f"{saved_steps(folder)[-1]} steps" in last

    process = start(train_by_command, words_of(CONFIG, folder), output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    assert_same_run(folder, uninterrupted)


def has_lines(path: Path, number: int) -> bool:
    return path.exists() and path.read_text().count("\n") >= number


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "output"
    process = start(train_by_command, words_of(replace(CONFIG, epochs=1000), folder), output)
    wait_until(lambda: has_lines(folder / "metrics.jsonl", 1), process, output)
    with pytest.raises(FolderError, match=f"another process is using {folder}"):
        run(replace(CONFIG, logdir=folder))
    with pytest.raises(FolderError, match="another process"):
        run(replace(CONFIG, logdir=folder, fresh=True))
    assert process.is_alive()
    process.kill()
