"""What TensorBoard shows of a run."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
import sysconfig
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recipes.common.data import Data
from recipes.common.measure import Closeup, Epoch, Step

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

# How the recipes know their own event files: no other is ever cut or deleted.
EVENT_SUFFIX = ".torchopt_course"

METRICS = ("accuracy/eval", "loss/eval", "loss/train")
LAYOUT = {
    "training": {
        "loss": ["Multiline", ["loss/train", "loss/eval"]],
        "loss of every step": ["Multiline", ["loss/train_step"]],
        "accuracy": ["Multiline", ["accuracy/eval"]],
    },
    "schedule": {
        "learning rate": ["Multiline", ["schedule/learning_rate"]],
        "momentum": ["Multiline", ["schedule/momentum"]],
    },
    "health": {
        "length of the gradient": ["Multiline", ["gradient_norm/step", "gradient_norm/epoch"]],
        "update to weight": ["Multiline", ["update_to_weight_ratio"]],
    },
}
SAMPLES = 24
SAMPLE_COLUMNS = 8
MOST_HISTOGRAMS = 20


class Board:
    """Writes the event file of a run, or of its continuation."""

    def __init__(self, folder: Path, from_step: int | None = None) -> None:
        """`from_step` tells a TensorBoard that is watching to forget what it saw of later steps."""
        self.writer = summary_writer(folder, from_step)

    def begin(self, settings: dict[str, Any]) -> None:
        """What stands at the start of a run: settings as a table and as text, and how to group the curves."""
        from torch.utils.tensorboard.summary import hparams

        # The same keys and metrics in every run, in the run's own file: then the runs are rows of one table.
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        experiment, session, _ = hparams(plain, dict.fromkeys(METRICS, math.nan))
        for summary in (experiment, session):
            self.writer.file_writer.add_summary(summary)  # type: ignore[union-attr, no-untyped-call]
        self.writer.add_custom_scalars(LAYOUT)
        self.writer.add_text("config", as_code(json.dumps(settings, indent=2)))

    def step(self, step: Step) -> None:
        """The curves that have a point for every step."""
        for tag, value in {
            "loss/train_step": step.loss,
            "schedule/learning_rate": step.lr,
            "schedule/momentum": step.momentum,
            "gradient_norm/step": step.grad_norm,
        }.items():
            if value is not None:
                self.writer.add_scalar(tag, value, step.step)

    def epoch(self, epoch: Epoch, closeups: dict[str, Closeup], epochs: int) -> None:
        """The curves that have a point for every epoch, and now and then histograms."""
        for tag, value in {
            "loss/train": epoch.train_loss,
            "loss/eval": epoch.loss,
            "accuracy/eval": epoch.accuracy,
            "learning_rate": epoch.lr,
            "gradient_norm/epoch": epoch.grad_norm,
            "update_to_weight_ratio": epoch.update_ratio,
        }.items():
            self.writer.add_scalar(tag, value, epoch.epoch)
        if epoch.epoch % math.ceil(epochs / MOST_HISTOGRAMS) and epoch.epoch != epochs:
            return
        for name, part in closeups.items():
            self.writer.add_histogram(f"weights/{name}", part.after, epoch.epoch)
            self.writer.add_histogram(f"gradients/{name}", part.gradient, epoch.epoch)
            sizes = part.effective_step_size()
            if len(sizes := sizes[sizes > 0]):  # decades: step sizes differ by factors
                self.writer.add_histogram(f"log10_effective_step_size/{name}", sizes.log10(), epoch.epoch)

    def pictures(self, data: Data, predicted: Tensor, epoch: int) -> None:
        """Some of the measured rows with the kind that was seen in them, and all of them as a matrix."""
        self.writer.add_figure("predictions", sample_figure(data, predicted.cpu()), epoch, close=False)
        self.writer.add_figure("confusion", confusion_figure(data, predicted.cpu()), epoch, close=False)

    def end(self) -> None:
        """Tell the table of runs that this one has come to its end."""
        from torch.utils.tensorboard.summary import hparams

        *_, end = hparams({}, {})
        self.writer.file_writer.add_summary(end)  # type: ignore[union-attr, no-untyped-call]


def pictures_are_due(epoch: int, epochs: int) -> bool:
    """After epochs 1, 4, 16, 64, ... and the last: drawing takes longer than a short epoch."""
    return epoch == epochs or epoch in (4**i for i in range(16))


def sample_figure(data: Data, predicted: Tensor) -> Figure:
    """The first rows as pictures; a wrong answer is red and followed by the right one."""
    from matplotlib.figure import Figure

    side, frame = data.side, data.side // 2  # the frame has room for the words
    lines = -(-SAMPLES // SAMPLE_COLUMNS)
    pictures = data.eval_inputs[:SAMPLES].cpu().view(-1, side, side)
    cell = side + frame
    # One large picture, which is drawn ten times as fast as one after the other.
    wall = torch.full((lines * cell, SAMPLE_COLUMNS * cell), pictures.min().item())
    figure = Figure(figsize=(SAMPLE_COLUMNS * 1.2, lines * 1.2), layout="constrained")
    axes = figure.subplots()
    for i, picture in enumerate(pictures):
        top, left = i // SAMPLE_COLUMNS * cell + frame, i % SAMPLE_COLUMNS * cell + frame // 2
        wall[top : top + side, left : left + side] = picture
        said, true = data.classes[predicted[i]], data.classes[data.eval_targets[i]]
        words, color = (said, "black") if said == true else (f"{said}\n({true})", "red")
        axes.text(left + side / 2, top, words, ha="center", va="bottom", fontsize=8, color=color)
    axes.imshow(wall.numpy(), cmap="gray_r")
    axes.set_axis_off()
    return figure


def confusion_figure(data: Data, predicted: Tensor) -> Figure:
    """How often each kind was taken for each other; shades are shares of a row."""
    from matplotlib.figure import Figure

    kinds = len(data.classes)
    pairs = data.eval_targets.cpu() * kinds + predicted
    counts = torch.bincount(pairs, minlength=kinds * kinds).view(kinds, kinds)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row in range(kinds):
        for column in range(kinds):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, int(counts[row, column]), ha="center", va="center", color=color, fontsize=8
                )
    axes.set_xticks(range(kinds), data.classes, rotation=45, ha="right")
    axes.set_yticks(range(kinds), data.classes)
    axes.set(xlabel="answer", ylabel="truth")
    return figure


def as_code(text: str) -> str:
    """Markdown that keeps the columns of a text."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def summary_writer(folder: Path, from_step: int | None = None) -> SummaryWriter:
    """TensorBoard's writer. It is imported here because that takes a second which `--help` need not wait."""
    # Where TensorFlow happens to be installed, TensorBoard imports all of it to write one file.
    # This module, when it exists, is its own sign for "use the small stand-in".
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    # The queue to the writing thread holds an epoch's scalars: training need not wait for the disk.
    return SummaryWriter(
        str(folder), purge_step=from_step, max_queue=1000, flush_secs=10, filename_suffix=EVENT_SUFFIX
    )


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
