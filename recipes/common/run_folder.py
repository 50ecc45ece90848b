"""The folder of one run: settings, metrics, result and TensorBoard's event file.

- `config.json`: the settings, written first
- `metrics.jsonl`: one line an epoch
- `events.out...`: the same for TensorBoard, with loss, learning rate and momentum of every step and the
  weights as histograms
- `result.json`: the outcome, written last; it is there only if the run came to its end
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import sysconfig
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from recipes.common.loop import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# How the recipes know their own files: nothing else in a folder is ever replaced or deleted.
WRITTEN_BY = "torchopt_course/recipes"
EVENT_SUFFIX = ".torchopt_course"


class FolderError(Exception):
    """The folder cannot take a run."""


class RunFolder:
    """Writes the files of one run. In a `with` statement it is closed however the run ends."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        make_room(path)
        write_json(path / "config.json", {"written_by": WRITTEN_BY, **settings})
        self.metrics = open(path / "metrics.jsonl", "w", encoding="utf-8")  # noqa: SIM115  closed in __exit__
        self.tensorboard = summary_writer(path)
        self.steps = 0

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.tensorboard.close()  # a writer that is never closed can leave nothing on the disk
        finally:
            self.metrics.close()

    def log(self, epoch: Epoch, model: nn.Module) -> None:
        """Write one epoch to both logs, all the way to the disk."""
        for tag, values in {
            "loss/train_step": epoch.step_losses,
            "schedule/learning_rate": epoch.step_lrs,
            "schedule/momentum": epoch.step_momenta,
        }.items():
            for step, value in enumerate(values, start=self.steps + 1):
                self.tensorboard.add_scalar(tag, value, step)
        self.steps += len(epoch.step_losses)
        scalars = {
            "loss/train": epoch.train_loss,
            "loss/eval": epoch.loss,
            "accuracy/eval": epoch.accuracy,
            "learning_rate": epoch.lr,
            "gradient_norm": epoch.grad_norm,
            "update_to_weight_ratio": epoch.update_ratio,
        }
        for tag, value in scalars.items():
            self.tensorboard.add_scalar(tag, value, epoch.epoch)
        for name, weight in model.named_parameters():
            self.tensorboard.add_histogram(f"weights/{name}", weight.detach(), epoch.epoch)
        self.tensorboard.flush()

        line = {name: value for name, value in vars(epoch).items() if not isinstance(value, list)}
        self.metrics.write(json.dumps(line) + "\n")
        self.metrics.flush()

    def finish(self, result: dict[str, Any]) -> None:
        """Write the outcome. The file says that the run is complete, so it is the last."""
        write_json(self.path / "result.json", result)


def make_room(path: Path) -> None:
    """Create the folder, or clear it of the run that lies in it, and of nothing else."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot create the folder {path}: {error.strerror}") from error

    config, metrics, result = (path / name for name in ("config.json", "metrics.jsonl", "result.json"))
    found = [file for file in (config, metrics, result) if file.exists()]
    if found and not is_ours(config):
        raise FolderError(f"{path} holds files of another program ({found[0].name}); choose another --logdir")

    result.unlink(missing_ok=True)  # first: a half-cleared folder must not look like a finished run
    metrics.unlink(missing_ok=True)
    for events in path.glob(f"events.out.tfevents.*{EVENT_SUFFIX}"):
        events.unlink()


def is_ours(config: Path) -> bool:
    """Was this config.json written by a recipe?"""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("written_by") == WRITTEN_BY


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is either complete or not there, also if the machine stops in the middle."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)


def summary_writer(path: Path) -> SummaryWriter:
    """TensorBoard's writer. It is imported here because that takes a second which `--help` need not wait."""
    # Where TensorFlow happens to be installed, TensorBoard imports all of it to write one file.
    # This module, when it exists, is its own sign for "use the small stand-in".
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    # The queue to the writing thread holds an epoch's scalars: training need not wait for the disk.
    return SummaryWriter(str(path), max_queue=1000, filename_suffix=EVENT_SUFFIX)


def tensorboard_command(logdir: Path) -> str:
    """The line that opens TensorBoard with the Python environment in use, ready to be pasted."""
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("tensorboard", path=scripts)
    words = [short(program)] if program else [short(sys.executable), "-m", "tensorboard.main"]
    return shlex.join([*words, "--logdir", str(logdir)])


def short(program: str) -> str:
    """The path from the current folder if the program lies below it, or else the whole path."""
    path, here = Path(program), Path.cwd()
    return str(path.relative_to(here)) if here in path.parents[1:] else str(path)
