"""What TensorBoard shows of a run of train.py."""

from __future__ import annotations

import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recipes.common.tensorboard import EVENT_SUFFIX, add_scalar, as_code, summary_writer
from recipes.trainer.measure import Closeup, Epoch, Meter

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
    "cycle_epochs": str,
    "momentum": str,
    "nesterov": bool,
    "betas": str,
    "weight_decay": str,
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
# Of every epoch and of every step: the tag, what it shows, and what stands beside the curve.
EPOCH_CURVES = {
    "loss/train": (
        "train_loss",
        "Mean cross-entropy of the epoch's training rows, each just before the step that used it.",
    ),
    "loss/eval": ("loss", "Mean cross-entropy of the rows that are only measured, after the epoch."),
    "accuracy/eval": (
        "accuracy",
        "Share of the rows that are only measured which the weights classify rightly.",
    ),
    "update_to_weight_ratio": (
        "update_ratio",
        "Length of the last update / length of the weights; some 0.001 is healthy.",
    ),
}
STEP_CURVES = {
    "loss/train_step": ("loss", "Mean cross-entropy of the step's batch, before the step."),
    "schedule/learning_rate": ("lr", "Learning rate of the step."),
    "schedule/momentum": ("momentum", "Momentum of the step; of Adam the first beta."),
    "gradient_norm": ("grad_norm", "Length of the gradient of all weights together."),
}
MOST_HISTOGRAMS = 20
POINTS_AT_ONCE = 400


class Board:
    """Writes the event file of a run, or of its continuation."""

    def __init__(self, folder: Path, from_step: int | None = None) -> None:
        """`from_step` tells a TensorBoard that is watching to forget what it saw from this step on."""
        if from_step is not None:
            wait_for_a_later_name(folder)
        self.writer = summary_writer(folder, from_step)
        self._points: list[tuple[str, float, int, str]] = []

    def begin(self, settings: dict[str, Any], model: nn.Module, example: Tensor) -> None:
        """What stands at the start: the run's row in the table of runs, the charts, and the model's graph."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        # The same columns in every run, in the run's own file: then the runs are rows of one table.
        table, row = api_pb2.Experiment(), plugin_data_pb2.SessionStartInfo()
        kinds = {str: ("string", api_pb2.DATA_TYPE_STRING), bool: ("bool", api_pb2.DATA_TYPE_BOOL)}
        for name, kind in HPARAMS.items():
            field, data_type = kinds.get(kind, ("number", api_pb2.DATA_TYPE_FLOAT64))
            table.hparam_infos.add(name=name, type=data_type, differs=name in SHOWN_AT_ONCE)
            setattr(row.hparams[name], f"{field}_value", kind(settings[name]))
        for tag in METRICS:
            table.metric_infos.add(name=api_pb2.MetricName(tag=tag))
        self._hparams(metadata.EXPERIMENT_TAG, experiment=table)
        self._hparams(metadata.SESSION_START_INFO_TAG, session_start_info=row)
        self.writer.add_custom_scalars(LAYOUT)
        self.config(settings, 0)
        self._graph(model.eval(), example)

    def _graph(self, model: nn.Module, example: Tensor) -> None:
        """The model's layers side by side, as TensorBoard shows what is not inside of one closed box."""
        from torch.utils.tensorboard._pytorch_graph import graph

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the end of torch.jit.trace, which is used here
            traced, times = graph(model, example)
        box = f"{type(model).__name__}/"
        for node in traced.node:
            node.name = node.name.removeprefix(box)
            node.input[:] = [name.removeprefix(box) for name in node.input]
        self.writer.file_writer.add_graph((traced, times))  # type: ignore[attr-defined]

    def config(self, settings: dict[str, Any], step: int) -> None:
        """The settings as text, from this step on."""
        self.writer.add_text("config", as_code(json.dumps(settings, indent=2)), step)

    def step(self, number: int, meter: Meter) -> None:
        """The curves that have a point for every step."""
        for tag, (name, words) in STEP_CURVES.items():
            if (value := getattr(meter, name)) is not None:
                self._points.append((tag, value, number, words))
        if len(self._points) >= POINTS_AT_ONCE:
            self._write_points()

    def _write_points(self) -> None:
        # Not one by one: a thread that writes while the next step is computed slows it down by half.
        for point in self._points:
            add_scalar(self.writer, *point)
        self._points.clear()

    def flush(self) -> None:
        """Wait until the file has everything."""
        self._write_points()
        self.writer.flush()

    def close(self) -> None:
        """A writer that is never closed can leave nothing on the disk."""
        self._write_points()
        self.writer.close()

    def epoch(self, epoch: Epoch, closeups: dict[str, Closeup], epochs: int) -> None:
        """The curves that have a point for every epoch, and now and then histograms."""
        for tag, (name, words) in EPOCH_CURVES.items():
            add_scalar(self.writer, tag, getattr(epoch, name), epoch.epoch, words)
        if epoch.epoch % math.ceil(epochs / MOST_HISTOGRAMS) and epoch.epoch != epochs:
            return
        for name, part in closeups.items():
            self.writer.add_histogram(f"weights/{name}", part.after, epoch.epoch)
            self.writer.add_histogram(f"gradients/{name}", part.gradient, epoch.epoch)
            if len(part.step_sizes):  # decades: they differ by factors
                tag, decades = f"log10_effective_step_size/{name}", part.step_sizes.log10()
                self.writer.add_histogram(tag, decades, epoch.epoch, bins=50)

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


def wait_for_a_later_name(folder: Path, most: float = 3.0) -> None:
    """Let the second pass in which the last event file was made.

    TensorBoard reads a run's files in the order of their names, and these begin with the second, which the
    number of the process follows. Read in the wrong order, the earlier steps would hide the later ones.
    A clock that was set back is not waited for any longer than `most` seconds.
    """
    seconds = [path.name.split(".")[3] for path in folder.glob(f"events.out.tfevents.*{EVENT_SUFFIX}")]
    newest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    deadline = time.monotonic() + most
    while int(time.time()) <= newest and time.monotonic() < deadline:
        time.sleep(0.05)
