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
import sys
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

from recipes.common.command_line import is_first_process
from recipes.common.data import Data
from recipes.common.errors import CheckpointError, FolderError
from recipes.common.folder import (
    METRICS_FILE,
    OR_FRESH,
    WRITTEN_BY,
    Folder,
    flush,
    read_json,
    write_json,
)
from recipes.common.model import make_model
from recipes.common.tensorboard import event_files, rendered
from recipes.trainer.board import Board, pictures_are_due
from recipes.trainer.checkpoint import Checkpoints
from recipes.trainer.measure import Epoch, Result
from recipes.trainer.pictures import confusion_figure, sample_figure
from recipes.trainer.training import Training

PICTURES = {"predictions": sample_figure, "confusion": confusion_figure}

# What may be another when a run is taken up again: it changes how or how long is computed, but not what.
MAY_CHANGE = {"epochs", "save_every", "data_dir", "logdir"}
# These too, but then sums are taken in another order: the weights agree within rounding, not bit for bit.
ROUNDS_OTHERWISE = {"threads", "processes", "device", "compile", "shard", "torch_version"}


class RunFolder(Folder):
    """The folder of a run. Of several processes only the first opens it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "train")
        self.checkpoints = Checkpoints(path)
        self.epochs: list[dict[str, Any]] = []
        """The lines of metrics.jsonl."""

    def open(
        self, settings: dict[str, Any], data: Data, fresh: bool
    ) -> tuple[dict[str, Any] | None, Result | None]:
        """Take up the run that lies in the folder, or begin a new one; `fresh` replaces what lies there.

        Returns the state of the training to go on from, None at the beginning, and the outcome of a run that
        had come to its end: nothing is written any more. Raises `FolderError` if another process has the
        folder, if a run with other settings lies in it, or files of another program; `CheckpointError` if
        there are checkpoints and none is valid.
        """
        self.settings = settings
        earlier = self.claim()
        training, finished = None, None
        if fresh or (earlier is None and not any(self.checkpoints.by_step())):
            self._clear()  # nothing worth going on from: a run that was killed before its first step
        else:
            content = self._last_checkpoint(earlier)
            training, self.epochs = content["training"], content["epochs"]
            if training["epochs_done"] == settings["epochs"]:
                with contextlib.suppress(TypeError):  # an outcome that is not whole is written anew
                    finished = Result(**(read_json(self.path / "result.json") or {}))
            if finished is None:
                warn_of_rounding(self.path, earlier or {}, settings)
                roll_back(self.path, content["logs"])
        log, lines = self.path / METRICS_FILE, "".join(map(line_of, self.epochs)).encode()
        if not log.is_file() or log.read_bytes() != lines:
            log.write_bytes(lines)
        if finished is None:
            self.board = Board(self.path, settings, training["steps_done"] + 1 if training else 0)
            self.on_close(self.board.close)
        if training is None:
            # A model of its own for the graph: tracing is nothing that the trained one should see.
            twin = make_model(settings["model"], data, settings["seed"])
            self.board.begin(settings, twin, data.eval_inputs[:1].cpu())
            self.board.flush()
        return training, finished

    def _last_checkpoint(self, earlier: dict[str, Any] | None) -> dict[str, Any]:
        """The newest valid checkpoint of the run in this folder, if it is this run."""
        if earlier is None or not self.checkpoints.by_step():
            lost = "config.json is" if earlier is None else "its checkpoints are"
            reason = f"holds a run that cannot be taken up again, because {lost} missing"
            raise FolderError(f"{self.path} {reason}; {OR_FRESH}")
        self.refuse_other(earlier, self.settings, MAY_CHANGE | ROUNDS_OTHERWISE)
        content = self.checkpoints.newest()
        if content is None or content.get("written_by") != WRITTEN_BY or "epochs" not in content:
            raise CheckpointError(f"the checkpoints in {self.path} are not of these recipes; {OR_FRESH}")
        if (done := content["training"]["epochs_done"]) > self.settings["epochs"]:
            reason = f"holds a run with {done} epochs, more than --epochs {self.settings['epochs']}"
            raise FolderError(f"{self.path} {reason}; {OR_FRESH}")
        return content

    def log(self, training: Training, epoch: Epoch | None) -> None:
        """Write a step to the logs, and the epoch that it ended all the way to the disk."""
        self.board.step(training.steps_done, training.meter)
        if epoch is None:
            return
        self.epochs.append(vars(epoch))
        self.board.epoch(epoch, training.meter.histograms, self.settings["epochs"])
        self.board.flush()
        with open(self.path / METRICS_FILE, "a", encoding="utf-8") as file:
            file.write(line_of(vars(epoch)))
        if pictures_are_due(epoch.epoch, self.settings["epochs"]):
            for name, draw in PICTURES.items():
                png, pixels = rendered(draw(training.data, training.answers.cpu()))
                (self.path / f"{name}.png").write_bytes(png)
                self.board.writer.add_image(name, pixels, epoch.epoch, dataformats="HWC")

    def save(self, training: dict[str, Any]) -> None:
        """Write a checkpoint, and before it all that was logged."""
        self.board.flush()
        logs = {}
        for path in event_files(self.path):
            flush(path)
            logs[path.name] = path.stat().st_size
        content = {"written_by": WRITTEN_BY, "epochs": self.epochs, "logs": logs, "training": training}
        self.checkpoints.save(training["steps_done"], content)
        self.write_settings(self.settings)  # not before there is a checkpoint: with it there is a run

    def finish(self, weights_sha256: str) -> Result:
        """Write the outcome. The file says that the run is complete, so it is the last."""
        known = {
            **self.epochs[-1],
            **self.settings,
            "seconds": sum(epoch["seconds"] for epoch in self.epochs),
            "step_microseconds": median(epoch["step_microseconds"] for epoch in self.epochs),
            "first_step_seconds": self.epochs[0]["first_step_seconds"],
            "weights_sha256": weights_sha256,
        }
        result = Result(**{part.name: known[part.name] for part in fields(Result) if part.name != "model"})
        self.board.end()
        self.board.flush()
        write_json(self.path / "result.json", result.summary())
        return result

    def _clear(self) -> None:
        """Remove the run that lies in the folder, and nothing else."""
        pictures = [f"{name}.png" for name in PICTURES]
        # The result first: half a run must not look finished.
        for pattern in ("result.json", "result-*-epochs.json", METRICS_FILE, "config.json", *pictures):
            for path in self.path.glob(pattern):
                path.unlink()
        self.checkpoints.clear()
        for path in event_files(self.path):
            path.unlink()


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
