"""What TensorBoard shows of a run."""

from __future__ import annotations

import io
import json
import math
import shlex
import shutil
import sys
import sysconfig
import time
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

# The columns of TensorBoard's table of runs. How many epochs, on which device and where is not among them:
# that may change when a run is taken up again, and TensorBoard keeps what it read first.
HPARAMS: dict[str, type] = {
    "optimizer": str,
    "lr": float,
    "scheduler": str,
    "model": str,
    "batch_size": int,
    "seed": int,
    "max_lr": str,  # a number or None; a column has one type
    "cycle_epochs": int,
    "data": str,
    "split": str,
    "autograd": str,
    "amp": bool,
}
# TensorBoard first shows five columns only, those that are said to differ between runs.
SHOWN_AT_ONCE = ("optimizer", "lr", "scheduler", "model", "batch_size")
METRICS = ("accuracy/eval", "loss/eval", "loss/train")

# Chart, and regular expressions of its curves. Steps and epochs do not share a chart: neither could be read.
LAYOUT = {
    "after every epoch": {
        "loss": ["Multiline", [r"^loss/train$", r"^loss/eval$"]],
        "accuracy": ["Multiline", [r"^accuracy/eval$"]],
        "update to weight": ["Multiline", [r"^update_to_weight_ratio$"]],
    },
    "at every step": {
        "loss": ["Multiline", [r"^loss/train_step$"]],
        "gradient norm": ["Multiline", [r"^gradient_norm$"]],
        "learning rate": ["Multiline", [r"^schedule/learning_rate$"]],
        "momentum": ["Multiline", [r"^schedule/momentum$"]],  # of the optimizers that have one
    },
}
SAMPLES = 24
SAMPLE_COLUMNS = 6
MOST_HISTOGRAMS = 20
STEPS_AT_ONCE = 100


class Board:
    """Writes the event file of a run, or of its continuation."""

    def __init__(self, folder: Path, from_step: int | None = None) -> None:
        """`from_step` tells a TensorBoard that is watching to forget what it saw from this step on."""
        if from_step is not None:
            wait_for_a_later_name(folder)
        self.writer = summary_writer(folder, from_step)
        self._steps: list[Step] = []

    def begin(self, settings: dict[str, Any]) -> None:
        """What stands at the start of a run: its row in the table of runs, and how to group the curves."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        # The same columns in every run, in the run's own file: then the runs are rows of one table.
        table, row = api_pb2.Experiment(), plugin_data_pb2.SessionStartInfo()
        for name, kind in HPARAMS.items():
            value = kind(settings[name])
            info = table.hparam_infos.add(name=name, differs=name in SHOWN_AT_ONCE)
            if kind is str:
                info.type, row.hparams[name].string_value = api_pb2.DATA_TYPE_STRING, value
            elif kind is bool:
                info.type, row.hparams[name].bool_value = api_pb2.DATA_TYPE_BOOL, value
            else:
                info.type, row.hparams[name].number_value = api_pb2.DATA_TYPE_FLOAT64, value
        for tag in METRICS:
            table.metric_infos.add(name=api_pb2.MetricName(tag=tag))
        self._hparams(metadata.EXPERIMENT_TAG, experiment=table)
        self._hparams(metadata.SESSION_START_INFO_TAG, session_start_info=row)
        self.writer.add_custom_scalars(LAYOUT)
        self.config(settings, 0)

    def config(self, settings: dict[str, Any], step: int) -> None:
        """The settings as text, from this step on."""
        self.writer.add_text("config", as_code(json.dumps(settings, indent=2)), step)

    def step(self, step: Step) -> None:
        """The curves that have a point for every step."""
        self._steps.append(step)
        if len(self._steps) >= STEPS_AT_ONCE:
            self._write_steps()

    def _write_steps(self) -> None:
        # Not one by one: a thread that writes while the next step is computed slows it down by half.
        for step in self._steps:
            for tag, value in {
                "loss/train_step": step.loss,
                "schedule/learning_rate": step.lr,
                "schedule/momentum": step.momentum,
                "gradient_norm": step.grad_norm,
            }.items():
                if value is not None:
                    self.writer.add_scalar(tag, value, step.step)
        self._steps.clear()

    def flush(self) -> None:
        """Wait until the file has everything."""
        self._write_steps()
        self.writer.flush()

    def close(self) -> None:
        """A writer that is never closed can leave nothing on the disk."""
        self._write_steps()
        self.writer.close()

    def epoch(self, epoch: Epoch, closeups: dict[str, Closeup], epochs: int) -> None:
        """The curves that have a point for every epoch, and now and then histograms."""
        for tag, value in {
            "loss/train": epoch.train_loss,
            "loss/eval": epoch.loss,
            "accuracy/eval": epoch.accuracy,
            "update_to_weight_ratio": epoch.update_ratio,
        }.items():
            self.writer.add_scalar(tag, value, epoch.epoch)
        if epoch.epoch % math.ceil(epochs / MOST_HISTOGRAMS) and epoch.epoch != epochs:
            return
        for name, part in closeups.items():
            self.writer.add_histogram(f"weights/{name}", part.after, epoch.epoch)
            self.writer.add_histogram(f"gradients/{name}", part.gradient, epoch.epoch)
            if len(part.step_sizes):  # decades: they differ by factors
                tag, decades = f"log10_effective_step_size/{name}", part.step_sizes.log10()
                self.writer.add_histogram(tag, decades, epoch.epoch, bins=50)

    def picture(self, name: str, pixels: Any, epoch: int) -> None:
        """A drawing, as it was after an epoch: height x width x 3."""
        self.writer.add_image(name, pixels, epoch, dataformats="HWC")

    def end(self) -> None:
        """Tell the table of runs that this one has come to its end."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
        self._hparams(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    def _hparams(self, tag: str, **content: Any) -> None:
        """Write one part of what the table of runs is made from."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
        value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
        self.writer.file_writer.add_summary(Summary(value=[value]))  # type: ignore[attr-defined]


def pictures_are_due(epoch: int, epochs: int) -> bool:
    """After epochs 1, 4, 16, 64, ... and the last: drawing takes longer than a short epoch."""
    return epoch == epochs or epoch in (4**i for i in range(16))


def sample_figure(data: Data, predicted: Tensor) -> Figure:
    """The first rows as pictures; a wrong answer is red and followed by the right one."""
    from matplotlib.figure import Figure

    side, frame = data.side, data.side * 2 // 3  # the frame has room for the words
    lines = -(-SAMPLES // SAMPLE_COLUMNS)
    pictures = data.eval_inputs[:SAMPLES].cpu().view(-1, side, side)
    cell = side + frame
    # One large picture, which is drawn ten times as fast as one after the other.
    wall = torch.full((lines * cell, SAMPLE_COLUMNS * cell), pictures.min().item())
    figure = Figure(figsize=(SAMPLE_COLUMNS, lines * 1.1))
    axes = figure.add_axes((0, 0, 1, 1))
    for i, picture in enumerate(pictures):
        top, left = i // SAMPLE_COLUMNS * cell + frame, i % SAMPLE_COLUMNS * cell + frame // 2
        wall[top : top + side, left : left + side] = picture
        said, true = data.classes[predicted[i]], data.classes[data.eval_targets[i]]
        words, color = (said, "black") if said == true else (f"{said}\n({true})", "red")
        axes.text(
            left + side / 2 - 0.5,
            top - 0.5 - side / 25,
            words,
            ha="center",
            va="bottom",
            fontsize=10,
            color=color,
        )
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
    figure = Figure(figsize=(5, 4.8))  # a card is half as wide: larger letters
    axes = figure.add_axes((0.2, 0.2, 0.78, 0.78))
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row in range(kinds):
        for column in range(kinds):
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column,
                    row,
                    str(int(counts[row, column])),
                    ha="center",
                    va="center",
                    color=color,
                    fontsize=9,
                )
    if max(map(len, data.classes)) > 2:
        axes.set_xticks(range(kinds), data.classes, rotation=45, ha="right")
    else:
        axes.set_xticks(range(kinds), data.classes)
    axes.set_yticks(range(kinds), data.classes)
    axes.set(xlabel="answer", ylabel="truth")
    return figure


def rendered(figure: Figure, dpi: int = 100) -> tuple[bytes, Any]:
    """A figure as PNG and as pixels, height x width x 3: drawn once, for that takes longer than all else."""
    import numpy as np
    from PIL import Image

    png = io.BytesIO()
    figure.savefig(png, dpi=dpi, format="png")
    return png.getvalue(), np.asarray(Image.open(png).convert("RGB"))


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
        str(folder),
        # TensorBoard without its fast data server takes the first such mark for the run's beginning.
        purge_step=from_step or 0,
        max_queue=1000,
        flush_secs=10,
        filename_suffix=EVENT_SUFFIX,
    )


def wait_for_a_later_name(folder: Path, most: float = 3.0) -> None:
    """Let the second pass in which the last event file was made.

    TensorBoard reads a run's files in the order of their names, and these begin with the second, which the
    number of the process follows. Read in the wrong order, the earlier steps would hide the later ones.
    A clock that was set back is not waited for any longer than `most` seconds.
    """
    names = [path.name for path in folder.glob(f"events.out.tfevents.*{EVENT_SUFFIX}")]
    newest = max((int(name.split(".")[3]) for name in names), default=0)
    deadline = time.monotonic() + most
    while int(time.time()) <= newest and time.monotonic() < deadline:
        time.sleep(0.05)


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
