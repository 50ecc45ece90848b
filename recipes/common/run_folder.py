"""The folder of a run, which a run can be taken up again from.

- `config.json`: the settings
- `step-NUMBER.torchopt_course.pt`: the two newest checkpoints
- `metrics.jsonl`: one line an epoch
- `events.out...`: TensorBoard's files, one for every time the run was taken up again
- `predictions.png`, `confusion.png`: what the model saw when they were drawn last
- `result.json`: the outcome, written last; it is there only if the run came to its end

A checkpoint knows how long the logs were when it was made. Whoever goes on from it cuts them back to that
length first, so that curves have neither gaps nor points that stand twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from recipes.common.board import EVENT_SUFFIX, Board, confusion_figure, rendered, sample_figure
from recipes.common.checkpoint import CheckpointError, Checkpoints, flush_folder, step_of, write_to_disk
from recipes.common.data import Data
from recipes.common.measure import Closeup, Epoch, Step

# How the recipes know their own files: nothing else in a folder is ever replaced or deleted.
WRITTEN_BY = "torchopt_course/recipes"
METRICS_FILE = "metrics.jsonl"
PICTURES = ("predictions", "confusion")

# What may be another when a run is taken up again: it changes how or how long is computed, but not what.
MAY_CHANGE = {"epochs", "device", "compile", "shard", "save_every", "data_dir", "logdir"}


class FolderError(Exception):
    """The folder cannot take a run."""


class RunFolder:
    """Opens the folder of a run for one process, and closes it however the run ends."""

    def __init__(self, path: Path, settings: dict[str, Any], fresh: bool = False) -> None:
        """Take up the run that lies in the folder, or begin a new one; `fresh` replaces what lies there.

        Raises `FolderError` if another process has the folder, if a run with other settings lies in it, or
        files of another program; `CheckpointError` if there are checkpoints and none is valid.
        """
        self.path, self.settings = path, settings
        self.checkpoints = Checkpoints(path)
        claim(path, "train")  # before a lock is laid into somebody else's folder
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(path))
            self.training = self._take_up(fresh)
            """State of the training to go on from; None at the beginning."""
            self.metrics = stack.enter_context(open(path / METRICS_FILE, "a", encoding="utf-8"))
            self.board = Board(path, None if self.training is None else self.training["steps_done"] + 1)
            stack.callback(self.board.close)
            if self.training is not None:  # the number of epochs, say, may be another now
                write_json(path / "config.json", {"written_by": WRITTEN_BY, **settings})
                self.board.config(settings, self.training["steps_done"] + 1)
            self._open = stack.pop_all()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            self._open.close()
        else:  # what ended the run is what the user must hear of, not that the logs could not be closed
            with contextlib.suppress(OSError):
                self._open.close()

    def _take_up(self, fresh: bool) -> dict[str, Any] | None:
        """The newest valid state of the run in this folder, with the logs as they were at that moment."""
        config = claim(self.path, "train")
        saved = self.checkpoints.paths()
        if fresh or (config is None and not any(step_of(path) for path in saved)):
            clear(self.path)  # nothing worth going on from: a run that was killed before its first step
            return None
        if config is None or not saved:
            missing = "config.json is" if config is None else "its checkpoints are"
            raise FolderError(
                f"{self.path} holds a run that cannot be taken up again, because {missing} missing; "
                "choose another --logdir, or replace it with --fresh"
            )
        for name, new in self.settings.items():
            if name not in MAY_CHANGE and (old := config.get(name)) != new:
                raise FolderError(
                    f"{self.path} holds a run with {name.replace('_', ' ')} {old}, not {new}; "
                    "choose another --logdir, or replace it with --fresh"
                )
        content = self.checkpoints.newest()
        if content is None or content.get("written_by") != WRITTEN_BY:
            raise CheckpointError(f"the checkpoints in {self.path} are not of these recipes")
        training: dict[str, Any] = content["training"]
        if training["epochs_done"] > self.settings["epochs"]:
            raise FolderError(
                f"{self.path} holds a run with {training['epochs_done']} epochs, more than "
                f"--epochs {self.settings['epochs']}; choose another --logdir, or replace it with --fresh"
            )
        roll_back(self.path, content["logs"])
        return training

    def begin(self, training: dict[str, Any]) -> None:
        """Write what stands at the start of a new run. config.json is last: from then on there is a run."""
        with self._writing():
            self.board.begin(self.settings)
        self.save(training)
        write_json(self.path / "config.json", {"written_by": WRITTEN_BY, **self.settings})

    def log_step(self, step: Step) -> None:
        """Write a step to TensorBoard's file."""
        with self._writing():
            self.board.step(step)

    def log_epoch(self, epoch: Epoch, closeups: dict[str, Closeup]) -> None:
        """Write an epoch to both logs, all the way to the disk."""
        line = {name: value for name, value in vars(epoch).items() if not isinstance(value, list)}
        line["step_microseconds"] = 1e6 * statistics.median(epoch.step_seconds)
        line["first_step_seconds"] = epoch.step_seconds[0]
        with self._writing():
            self.board.epoch(epoch, closeups, self.settings["epochs"])
            self.board.flush()
            self.metrics.write(json.dumps(line) + "\n")
            self.metrics.flush()

    def log_pictures(self, data: Data, predicted: Tensor, epoch: int) -> None:
        """Draw what the model sees, for TensorBoard and as PICTURES."""
        figures = sample_figure(data, predicted.cpu()), confusion_figure(data, predicted.cpu())
        with self._writing():
            for name, figure in zip(PICTURES, figures, strict=True):
                png, pixels = rendered(figure)
                (self.path / f"{name}.png").write_bytes(png)
                self.board.picture(name, pixels, epoch)

    def save(self, training: dict[str, Any]) -> None:
        """Write a checkpoint, and before it all that was logged."""
        with self._writing():
            self.board.flush()
            self.metrics.flush()
            logs = {}
            for path in own_logs(self.path):
                flush_file(path)
                logs[path.name] = path.stat().st_size
        content = {"written_by": WRITTEN_BY, "logs": logs, "training": training}
        self.checkpoints.save(training["steps_done"], content)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the outcome. The file says that the run is complete, so it is the last."""
        with self._writing():
            self.board.end()
            self.board.flush()
            write_json(self.path / "result.json", result)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Say which folder it was, if the disk does not take it."""
        try:
            yield
        except OSError as error:
            raise FolderError(
                f"cannot write to {self.path}: {error.strerror or error}; its last checkpoint is intact"
            ) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Create the folder and keep other processes out of it. Also a killed process lets go of it."""
    from filelock import FileLock, Timeout  # torch depends on it

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"another process is using {path}; choose another --logdir") from error
    except OSError as error:
        raise FolderError(f"cannot create the folder {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def claim(path: Path, recipe: str) -> dict[str, Any] | None:
    """The settings of the run that lies in the folder; None if there is none.

    Raises `FolderError` if there are files of another program, or the outcome of another recipe.
    """
    config = read_json(path / "config.json")
    if config is None or config.get("written_by") != WRITTEN_BY:
        theirs = [name for name in ("config.json", METRICS_FILE, "result.json") if has_content(path / name)]
        if theirs and (config is not None or not Checkpoints(path).paths()):
            raise FolderError(f"{path} holds files of another program ({theirs[0]}); choose another --logdir")
        return None
    if config.get("recipe", recipe) != recipe:
        raise FolderError(f"{path} holds what {config['recipe']}.py has left; choose another --logdir")
    return config


def has_content(path: Path) -> bool:
    """Is there a file, and something in it?"""
    return path.is_file() and path.stat().st_size > 0


def clear(path: Path) -> None:
    """Remove the run that lies in the folder, and nothing else."""
    for name in ("result.json", METRICS_FILE, "config.json", *(f"{name}.png" for name in PICTURES)):
        (path / name).unlink(
            missing_ok=True
        )  # the result first: half a run must not look like a finished one
    Checkpoints(path).clear()
    for events in path.glob(f"events.out.tfevents.*{EVENT_SUFFIX}"):
        events.unlink()


def own_logs(path: Path) -> list[Path]:
    """The files of the run that grow."""
    return sorted([path / METRICS_FILE, *path.glob(f"events.out.tfevents.*{EVENT_SUFFIX}")])


def roll_back(path: Path, lengths: dict[str, int]) -> None:
    """Make the logs as they were: cut what has been added since."""
    (path / "result.json").unlink(missing_ok=True)
    for log in own_logs(path):
        if log.name not in lengths:
            log.unlink(missing_ok=True)
        elif log.stat().st_size > lengths[log.name]:
            os.truncate(log, lengths[log.name])


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, one for each epoch since it began."""
    return [json.loads(line) for line in (path / METRICS_FILE).read_text("utf-8").splitlines()]


def plain_settings(options: object) -> dict[str, Any]:
    """What a command line was read into, as JSON can say it."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is either complete or not there, also if the machine stops in the middle."""
    draft = path.with_name(path.name + ".draft")
    write_to_disk(draft, (json.dumps(content, indent=2) + "\n").encode())
    os.replace(draft, path)
    flush_folder(path.parent)


def flush_file(path: Path) -> None:
    """Wait until the disk has what was written to a file, by whomever."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
