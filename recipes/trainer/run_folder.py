"""The folder of a run, which a run can be taken up again from.

- `config.json`: the settings
- `step-NUMBER.torchopt_course.pt`: the two newest checkpoints
- `metrics.jsonl`: one line an epoch
- `events.out...`: TensorBoard's files, one for every time the run was taken up again
- `predictions.png`, `confusion.png`: what the model saw when they were drawn last
- `result.json`: the outcome, written last; it is there only if the run came to its end. That of a run which
  was given more epochs is kept as `result-NUMBER-epochs.json`

A checkpoint knows the epochs so far, and how long TensorBoard's files were when it was made. Whoever goes on
from it writes metrics.jsonl from the one, and cuts the files back to the other first, so that curves have
neither gaps nor points that stand twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recipes.common.command_line import is_first_process
from recipes.common.data import Data
from recipes.common.errors import CheckpointError, FolderError
from recipes.common.folder import (
    METRICS_FILE,
    WRITTEN_BY,
    earlier_settings,
    flush_file,
    locked,
    read_json,
    refuse_other_settings,
    told_where,
    write_json,
)
from recipes.common.model import make_model
from recipes.common.tensorboard import EVENT_SUFFIX, rendered
from recipes.trainer.board import Board
from recipes.trainer.checkpoint import Checkpoints
from recipes.trainer.measure import Closeup, Epoch, Result
from recipes.trainer.pictures import confusion_figure, sample_figure

if TYPE_CHECKING:
    from recipes.trainer.training import Training

PICTURES = ("predictions", "confusion")

# What may be another when a run is taken up again: it changes how or how long is computed, but not what.
MAY_CHANGE = {"epochs", "save_every", "data_dir", "logdir"}
# These too, but then sums are taken in another order: the weights agree within rounding, not bit for bit.
ROUNDS_OTHERWISE = {"threads", "processes", "device", "compile", "shard", "torch_version"}
INTACT = "; its last checkpoint is intact"


class RunFolder:
    """Opens the folder of a run for one process, and closes it however the run ends."""

    def __init__(self, path: Path, settings: dict[str, Any], fresh: bool = False) -> None:
        """Take up the run that lies in the folder, or begin a new one; `fresh` replaces what lies there.

        Raises `FolderError` if another process has the folder, if a run with other settings lies in it, or
        files of another program; `CheckpointError` if there are checkpoints and none is valid.
        """
        self.path, self.settings = path, settings
        self.checkpoints = Checkpoints(path)
        earlier_settings(path, "train")  # before a lock is laid into somebody else's folder
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(path))
            self.result: Result | None = None
            """Of a run that had come to its end: nothing is written any more."""
            self.epochs: list[dict[str, Any]] = []
            """The lines of metrics.jsonl."""
            self.training = self._take_up(fresh)
            """State of the training to go on from; None at the beginning."""
            if self.result is not None:
                self._open: contextlib.ExitStack[Any] = stack.pop_all()
                return
            self.metrics = stack.enter_context(open(path / METRICS_FILE, "a", encoding="utf-8"))
            self.board = Board(path, self.training["steps_done"] + 1 if self.training else None)
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
        config = earlier_settings(self.path, "train")
        saved = self.checkpoints.by_step()
        went_on = any(saved)  # beyond step 0
        if fresh or (config is None and not went_on):
            clear(self.path)  # nothing worth going on from: a run that was killed before its first step
            return None
        if config is None or not saved:
            missing = "config.json is" if config is None else "its checkpoints are"
            raise FolderError(
                f"{self.path} holds a run that cannot be taken up again, because {missing} missing; "
                "choose another --logdir, or replace it with --fresh"
            )
        refuse_other_settings(self.path, config, self.settings, MAY_CHANGE | ROUNDS_OTHERWISE)
        content = self.checkpoints.newest()
        if content is None or content.get("written_by") != WRITTEN_BY or "epochs" not in content:
            raise CheckpointError(f"the checkpoints in {self.path} are not of these recipes")
        training: dict[str, Any] = content["training"]
        if training["epochs_done"] > self.settings["epochs"]:
            raise FolderError(
                f"{self.path} holds a run with {training['epochs_done']} epochs, more than "
                f"--epochs {self.settings['epochs']}; choose another --logdir, or replace it with --fresh"
            )
        self.epochs = content["epochs"]
        if training["epochs_done"] == self.settings["epochs"]:
            self.result = Result.of(read_json(self.path / "result.json"))
        if self.result is None:
            warn_of_rounding(self.path, config, self.settings)
            roll_back(self.path, content["logs"])
        lines = "".join(map(line_of, self.epochs)).encode()
        if not (log := self.path / METRICS_FILE).is_file() or log.read_bytes() != lines:
            with told_where(self.path, INTACT):
                log.write_bytes(lines)
        return training

    def begin(self, training: dict[str, Any], data: Data) -> None:
        """Write what stands at the start of a new run. config.json is last: from then on there is a run."""
        # A model of its own for TensorBoard's graph: tracing is nothing that the trained one should see.
        twin = make_model(self.settings["model"], data, self.settings["seed"])
        with told_where(self.path):
            self.board.begin(self.settings, twin, data.eval_inputs[:1].cpu())
        self.save(training)
        write_json(self.path / "config.json", {"written_by": WRITTEN_BY, **self.settings})

    def log(self, training: Training, epoch: Epoch | None, predicted: Tensor | None = None) -> None:
        """Write a step to the logs, and the epoch that it ended, with pictures of what was predicted then."""
        with told_where(self.path, INTACT):
            self.board.step(training.steps_done, training.meter)
            if epoch:
                self.log_epoch(epoch, training.meter.closeups)
            if predicted is not None:
                self.log_pictures(training.data, predicted.cpu(), training.epochs_done)

    def log_epoch(self, epoch: Epoch, closeups: dict[str, Closeup]) -> None:
        """Write an epoch to both logs, all the way to the disk."""
        numbers = {name: value for name, value in vars(epoch).items() if not isinstance(value, list)}
        numbers["step_microseconds"] = 1e6 * statistics.median(epoch.step_seconds)
        numbers["first_step_seconds"] = epoch.step_seconds[0]
        self.epochs.append(numbers)
        self.board.epoch(epoch, closeups, self.settings["epochs"])
        self.board.flush()
        self.metrics.write(line_of(numbers))
        self.metrics.flush()

    def log_pictures(self, data: Data, predicted: Tensor, epoch: int) -> None:
        """Draw what the model sees, for TensorBoard and as PICTURES."""
        figures = sample_figure(data, predicted), confusion_figure(data, predicted)
        for name, figure in zip(PICTURES, figures, strict=True):
            png, pixels = rendered(figure)
            (self.path / f"{name}.png").write_bytes(png)
            self.board.writer.add_image(name, pixels, epoch, dataformats="HWC")

    def save(self, training: dict[str, Any]) -> None:
        """Write a checkpoint, and before it all that was logged."""
        with told_where(self.path, INTACT):
            self.board.flush()
            logs = {}
            for path in event_files(self.path):
                flush_file(path)
                logs[path.name] = path.stat().st_size
        content = {"written_by": WRITTEN_BY, "epochs": self.epochs, "logs": logs, "training": training}
        self.checkpoints.save(training["steps_done"], content)

    def finish(self, digest: str) -> Result:
        """Write the outcome. The file says that the run is complete, so it is the last."""
        settings, last = self.settings, self.epochs[-1]
        result = Result(
            **{name: settings[name] for name in ("optimizer", "lr", "scheduler", "seed", "epochs")},
            **{name: last[name] for name in ("accuracy", "loss", "train_loss")},
            seconds=sum(epoch["seconds"] for epoch in self.epochs),
            step_microseconds=statistics.median(epoch["step_microseconds"] for epoch in self.epochs),
            first_step_seconds=self.epochs[0]["first_step_seconds"],
            torch_version=settings["torch_version"],
            weights_sha256=digest,
        )
        with told_where(self.path, INTACT):
            self.board.end()
            self.board.flush()
            write_json(self.path / "result.json", result.summary())
        return result


def warn_of_rounding(path: Path, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    """Say on stderr where the promise of the same bits ends, and how it would hold."""
    others = [
        f"{name.replace('_', ' ')} {settings[name]} instead of {earlier.get(name)}"
        for name in sorted(ROUNDS_OTHERWISE)
        if earlier.get(name) != settings[name]
    ]
    if others and is_first_process():
        cure = f" (OMP_NUM_THREADS={earlier.get('threads')} would)" if "threads" in others[-1] else ""
        print(
            f"{path} goes on with {', '.join(others)}: its weights will be those of an undisturbed run "
            f"within rounding, not bit for bit{cure}",
            file=sys.stderr,
        )


def clear(path: Path) -> None:
    """Remove the run that lies in the folder, and nothing else."""
    for name in ("result.json", METRICS_FILE, "config.json", *(f"{name}.png" for name in PICTURES)):
        (path / name).unlink(missing_ok=True)  # the result first: half a run must not look finished
    Checkpoints(path).clear()
    for outcome in path.glob("result-*-epochs.json"):
        outcome.unlink()
    for events in event_files(path):
        events.unlink()


def event_files(path: Path) -> list[Path]:
    """TensorBoard's files of the run."""
    return list(path.glob(f"events.out.tfevents.*{EVENT_SUFFIX}"))


def roll_back(path: Path, lengths: dict[str, int]) -> None:
    """Cut what came since from TensorBoard's files. The outcome of fewer epochs gets its own name."""
    if result := read_json(path / "result.json"):
        os.replace(path / "result.json", path / f"result-{result.get('epochs')}-epochs.json")
    for log in event_files(path):
        if log.name not in lengths:
            log.unlink()
        elif log.stat().st_size > lengths[log.name]:
            os.truncate(log, lengths[log.name])
    for name, length in lengths.items():
        if not (path / name).is_file() or (path / name).stat().st_size < length:
            print(
                f"{path / name} is not what it was: TensorBoard will not show all of its part of the run",
                file=sys.stderr,
            )


def line_of(epoch: dict[str, Any]) -> str:
    """An epoch in metrics.jsonl."""
    return json.dumps(epoch) + "\n"


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, one for each epoch since it began."""
    return [json.loads(line) for line in (path / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
