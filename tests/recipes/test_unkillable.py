"""A run that is killed, stopped or broken goes on as if nothing had been."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.common import folder as files
from recipes.common.errors import FolderError, StoppedError, TrainingDivergedError
from recipes.train import Config
from recipes.trainer import training as training_module
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run, set_up

from ..processes import start
from .processes import train_by_command

pytestmark = [pytest.mark.slow, pytest.mark.processes]

# Batch norm, dropout, a schedule and an optimizer with state: all that could be forgotten. 10 steps an epoch.
CONFIG = Config(model="lenet", optimizer="adam", scheduler="cyclic", epochs=3, batch_size=150, save_every=0)
STEPS = 30


def words_of(config: Config, folder: Path) -> list[str]:
    """The command line that gives this config."""
    words = [f"--logdir={folder}"]
    for name in ("model", "optimizer", "scheduler", "epochs", "batch_size", "save_every"):
        words.append(f"--{name.replace('_', '-')}={getattr(config, name)}")
    return words


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start(train_by_command, words_of(CONFIG, folder / "run"), folder / "output")
    process.join(120)
    assert process.exitcode == 0, (folder / "output").read_text()
    return folder / "run"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All points of all curves but those of the clock, as TensorBoard's own reader sees them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same_run(folder: Path, other: Path) -> None:
    mine, theirs = (json.loads((f / "result.json").read_text()) for f in (folder, other))
    assert mine["weights_sha256"] == theirs["weights_sha256"]
    assert (mine["accuracy"], mine["loss"], mine["train_loss"]) == (
        theirs["accuracy"],
        theirs["loss"],
        theirs["train_loss"],
    )
    assert curves(folder) == curves(other)
    timeless = [
        [
            {name: value for name, value in json.loads(line).items() if "seconds" not in name}
            for line in (f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in (folder, other)
    ]
    assert timeless[0] == timeless[1]


def wait_until(condition: Callable[[], object], process: BaseProcess, output: Path) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert process.is_alive(), output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:15]) for path in folder.glob("step-*.pt"))


def test_curves_have_a_point_for_every_step(uninterrupted: Path) -> None:
    seen = curves(uninterrupted)
    assert [step for step, _ in seen["loss/train_step"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in seen["loss/train"]] == list(range(1, CONFIG.epochs + 1))


def kill_at_random(folder: Path, times: int, dice: random.Random) -> list[int]:
    """Start a run, kill it at some instant, again and again, and let it end; where it was when killed."""
    output, killed_at = folder.with_suffix(".output"), []
    for goal in sorted(dice.choices(range(STEPS), k=times)):
        process = start(train_by_command, words_of(CONFIG, folder), output)
        wait_until(lambda goal=goal: max(saved_steps(folder), default=0) >= goal, process, output)
        time.sleep(dice.random() * 0.02)  # somewhere in a step, or in writing a file
        process.kill()
        process.join()
        killed_at.append(max(saved_steps(folder), default=0))
    process = start(train_by_command, words_of(CONFIG, folder), output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    return killed_at


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
    assert process.exitcode == 2, output.read_text()
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


# ---------------------------------------------------------------- what may be taken up, and what not

SMALL = Config(epochs=2, batch_size=500, optimizer="momentum")


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


# ---------------------------------------------------------------- broken disks, broken numbers


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
