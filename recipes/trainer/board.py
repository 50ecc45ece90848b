"""What TensorBoard shows of a run of train.py."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recipes.common.tensorboard import add_scalar, as_code, event_files, summary_writer
from recipes.trainer.measure import Epoch, Meter

# The columns of TensorBoard's table of runs. How many epochs, on which device and where is not among them:
# that may change when a run is taken up again, and TensorBoard keeps what it read first.
HPARAMS: dict[str, type] = {
    **dict.fromkeys(("optimizer", "scheduler", "model", "data", "split", "autograd"), str),
    **dict.fromkeys(("lr", "batch_size", "seed"), float),
    **dict.fromkeys(("nesterov", "amp"), bool),
    # A number or None; a column has one type.
    **dict.fromkeys(("max_lr", "cycle_epochs", "momentum", "betas", "weight_decay"), str),
}
# TensorBoard first shows five columns only, those that are said to differ between runs.
SHOWN_AT_ONCE = ("optimizer", "lr", "scheduler", "model", "batch_size")
METRICS = ("accuracy/eval", "loss/eval", "loss/train")

# Of every epoch and of every step: the chart, the tag, what it shows, and what stands beside the curve.
EPOCH_CURVES = (
    (
        "loss",
        "loss/train",
        "train_loss",
        "Mean cross-entropy of the epoch's training rows, before their steps.",
    ),
    ("loss", "loss/eval", "loss", "Mean cross-entropy of the rows that are only measured, after the epoch."),
    ("accuracy", "accuracy/eval", "accuracy", "Share of the measured rows that are classified rightly."),
    (
        "update to weight",
        "update_to_weight_ratio",
        "update_ratio",
        "Length of the last update / length of the weights; some 0.001 is healthy.",
    ),
)
STEP_CURVES = (
    ("loss", "loss/train_step", "loss", "Mean cross-entropy of the step's batch, before the step."),
    ("gradient norm", "gradient_norm", "grad_norm", "Length of the gradient of all weights together."),
    ("learning rate", "schedule/learning_rate", "lr", "Learning rate of the step."),
    ("momentum", "schedule/momentum", "momentum", "Momentum of the step; of Adam the first beta."),
)
# Steps and epochs do not share a chart: neither could be read.
CURVES = {"after every epoch": EPOCH_CURVES, "at every step": STEP_CURVES}
LAYOUT = {
    when: {
        chart: ["Multiline", [f"^{tag}$" for other, tag, *_ in curves if other == chart]]
        for chart, *_ in curves
    }
    for when, curves in CURVES.items()
}
MOST_HISTOGRAMS = 20


class Board:
    """Writes the event file of a run, or of its continuation."""

    def __init__(self, folder: Path, settings: dict[str, Any], from_step: int = 0) -> None:
        """A TensorBoard that is watching forgets what it saw from `from_step` on."""
        if from_step:
            wait_for_a_later_name(folder)
        self.writer = summary_writer(folder, from_step)
        self.writer.add_text("config", as_code(json.dumps(settings, indent=2)), from_step)
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

    def step(self, number: int, meter: Meter) -> None:
        """The curves that have a point for every step."""
        # Kept until `flush`: a thread that writes while the next step is computed slows it down by half.
        for _, tag, name, words in STEP_CURVES:
            if (value := getattr(meter, name)) is not None:
                self._points.append((tag, value, number, words))

    def epoch(self, epoch: Epoch, histograms: dict[str, Tensor], epochs: int) -> None:
        """The curves that have a point for every epoch, and now and then histograms."""
        for _, tag, name, words in EPOCH_CURVES:
            add_scalar(self.writer, tag, getattr(epoch, name), epoch.epoch, words)
        if epoch.epoch == epochs or epoch.epoch % math.ceil(epochs / MOST_HISTOGRAMS) == 0:
            for tag, values in histograms.items():
                self.writer.add_histogram(tag, values, epoch.epoch, bins=50)

    def flush(self) -> None:
        """Wait until the file has everything."""
        for point in self._points:
            add_scalar(self.writer, *point)
        self._points.clear()
        self.writer.flush()

    def close(self) -> None:
        """A writer that is never closed can leave nothing on the disk."""
        with contextlib.closing(self.writer):
            self.flush()

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


def wait_for_a_later_name(folder: Path) -> None:
    """Let the second pass in which the last event file was made.

    TensorBoard reads a run's files in the order of their names, and these begin with the second, which the
    number of the process follows. Read in the wrong order, the earlier steps would hide the later ones.
    A clock that was set back is not waited for any longer than three seconds.
    """
    names = " ".join(path.name for path in event_files(folder))
    newest = max(map(int, re.findall(r"tfevents\.(\d+)\.", names)), default=0)
    time.sleep(min(max(newest + 1 - time.time(), 0), 3))
