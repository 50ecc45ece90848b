"""What TensorBoard's files hold of a run: curves, histograms, pictures and the graph, read back."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.common.data import load_data
from recipes.common.model import mlp
from recipes.train import Config
from recipes.trainer.pictures import confusion_figure, sample_figure
from recipes.trainer.run import run, set_up

from .left_behind import TRAINING_ROWS, curve, events_of, metrics_of
from .tensorboard_of_runs import (
    CURVES_OF_EPOCHS,
    CURVES_OF_STEPS,
    PATIENCE,
    RUNS,
    pixels,
)

ROOT = Path(__file__).resolve().parents[2]


def drawn(figure: Any) -> np.ndarray:
    """The pixels of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return pixels(buffer.getvalue())


@pytest.mark.parametrize("name", RUNS)
def test_curves_of_epochs_and_steps(name: str, logdir: Path) -> None:
    events, metrics = events_of(logdir / name), metrics_of(logdir / name)
    momentum = {"schedule/momentum"} if name == "adam" else set()  # Adagrad has none: no empty chart
    without = {"schedule/momentum"} - momentum
    assert set(events.Tags()["scalars"]) == {*CURVES_OF_EPOCHS, *CURVES_OF_STEPS} - without

    for tag, field in CURVES_OF_EPOCHS.items():
        expected = [(line["epoch"], pytest.approx(line[field], rel=1e-6)) for line in metrics]
        assert curve(events, tag) == expected
    for tag in {*CURVES_OF_STEPS} - without:
        assert [step for step, _ in curve(events, tag)] == [1, 2, 3, 4, 5, 6]
    ends = {tag: [value for _, value in curve(events, tag)][2::3] for tag in CURVES_OF_STEPS[:3]}
    assert ends["gradient_norm"] == pytest.approx([line["grad_norm"] for line in metrics], rel=1e-6)
    assert ends["schedule/learning_rate"] == pytest.approx([line["lr"] for line in metrics], rel=1e-6)


def test_histograms_of_weights_and_gradients_are_those_of_a_known_step(tmp_path: Path) -> None:
    # One step with all rows: the gradient at torch's initial weights can be computed beforehand.
    run(Config(optimizer="sgd", lr=0.5, epochs=1, batch_size=TRAINING_ROWS, seed=3, logdir=tmp_path))
    data = load_data("digits", "test")
    torch.manual_seed(3)
    model = mlp(8, 10).double()
    loss = torch.nn.functional.cross_entropy(model(data.train_inputs.double()), data.train_targets)
    loss.backward()

    events = events_of(tmp_path)
    for name, weight in model.named_parameters():
        assert_histogram(events, f"gradients/{name}", weight.grad)
        assert_histogram(events, f"weights/{name}", weight.detach() - 0.5 * weight.grad)
        # Plain gradient descent has one step size for all weights.
        shown = events.Histograms(f"log10_effective_step_size/{name}")[-1].histogram_value
        assert [shown.min, shown.max] == pytest.approx([math.log10(0.5)] * 2, abs=1e-6)


def assert_histogram(events: EventAccumulator, tag: str, values: torch.Tensor) -> None:
    shown = events.Histograms(tag)[-1].histogram_value
    found = [shown.num, shown.min, shown.max, shown.sum / shown.num]
    true = [values.numel(), values.min().item(), values.max().item(), values.mean().item()]
    assert found == pytest.approx(true, rel=1e-3, abs=1e-6)
    assert sum(shown.bucket) == values.numel()


@pytest.mark.parametrize("name", RUNS)
def test_histograms_of_the_effective_step_size_follow_from_the_optimizers_state(
    name: str, logdir: Path
) -> None:
    newest = max((logdir / name).glob("step-*.pt"))
    states = torch.load(newest, weights_only=True)["training"]["optimizer"]["state"]
    training = set_up(RUNS[name])
    list(training.epochs(RUNS[name].epochs))  # the same again, for the gradients of the last step
    events = events_of(logdir / name)
    lr = curve(events, "schedule/learning_rate")[-1][1]
    for state, (parameter, weight) in zip(states.values(), training.weights.items(), strict=True):
        if name == "adagrad":
            pulled = weight.grad != 0
            squares = state["sum"].double()
            sizes = lr / (squares.sqrt() + 1e-10)
        else:
            pulled = state["exp_avg"] != 0
            squares = state["exp_avg_sq"].double()
            beta1 = curve(events, "schedule/momentum")[-1][1]
            corrected = squares / (1 - 0.999**6)
            sizes = lr / (1 - beta1**6) / (corrected.sqrt() + 1e-8)
        assert_histogram(events, f"log10_effective_step_size/{parameter}", sizes[pulled].log10())


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", "adam", "adamw"])
def test_the_effective_step_size_is_how_far_the_weights_go(optimizer: Any) -> None:
    # A schedule, so that rate and momentum of the next step are others than those of this one.
    training = set_up(
        Config(optimizer=optimizer, lr=0.01, scheduler="cyclic", cycle_epochs=2, epochs=3, batch_size=300)
    )
    before: dict[str, torch.Tensor] = {}

    def remember(*_: Any) -> None:
        before.update({name: weight.detach().clone() for name, weight in training.weights.items()})

    training.optimizer.register_step_pre_hook(remember)
    *_, last = training.epochs(3)
    for name, weight in training.weights.items():
        state = training.optimizer.state[weight]
        direction = state.get("exp_avg", weight.grad)
        size = torch.zeros_like(weight)
        size[direction != 0] = 10 ** training.meter.histograms[f"log10_effective_step_size/{name}"]
        decay = last.lr * 0.01 if optimizer == "adamw" else 0.0
        arrived = before[name] * (1 - decay) - size * direction
        torch.testing.assert_close(arrived, weight.detach(), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(before[name], weight, rtol=1e-4, atol=1e-5)


def test_weights_that_stand_still_have_no_effective_step_size(tmp_path: Path) -> None:
    run(Config(lr=0.0, epochs=1, batch_size=TRAINING_ROWS, logdir=tmp_path))
    groups = {tag.split("/")[0] for tag in events_of(tmp_path).Tags()["histograms"]}
    assert groups == {"weights", "gradients"}


def test_pictures_show_the_predictions_of_the_final_weights(logdir: Path) -> None:
    result = run(dataclasses.replace(RUNS["adam"], logdir=logdir / "adam"))  # finished: only loaded
    data = load_data("digits", "test")
    with torch.no_grad():
        predicted = result.model(data.eval_inputs).argmax(dim=1)
    events = events_of(logdir / "adam")
    for tag, figure in {"predictions": sample_figure, "confusion": confusion_figure}.items():
        shown = events.Images(tag)
        assert [image.step for image in shown] == [1, 2]
        assert np.array_equal(pixels(shown[-1].encoded_image_string), drawn(figure(data, predicted)))
        assert not np.array_equal(*(pixels(image.encoded_image_string) for image in shown))


def test_the_graph_opens_with_the_layers_side_by_side(logdir: Path) -> None:
    events = EventAccumulator(str(logdir / "adam")).Reload()
    graph = {node.name: list(node.input) for node in events.Graph().node}
    assert {name.partition("/")[0] for name in graph} == {
        "input", "Linear[hidden]", "ReLU[relu]", "Linear[output]", "output"
    }  # fmt: skip
    boxes = {(name.partition("/")[0], source.partition("/")[0]) for name in graph for source in graph[name]}
    chain = ["input", "Linear[hidden]", "ReLU[relu]", "Linear[output]", "output"]
    assert {(after, before) for before, after in itertools.pairwise(chain)} <= boxes


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    data = load_data("digits", "test")
    predicted = (data.eval_targets + (torch.arange(360) % 7 == 0) * torch.arange(360)) % 10
    (axes,) = confusion_figure(data, predicted).axes
    shown = np.zeros((10, 10), dtype=int)
    for text in axes.texts:
        column, row = text.get_position()
        shown[row, column] = int(text.get_text())
    assert (shown == confusion_matrix(data.eval_targets, predicted)).all()
    (shades,) = axes.images
    shares = confusion_matrix(data.eval_targets, predicted, normalize="true")
    assert np.allclose(shades.get_array(), shares)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "truth")


def test_a_wrong_answer_is_drawn_red_and_followed_by_the_right_one() -> None:
    data = load_data("digits", "test")
    right = data.eval_targets
    wrong = right.clone()
    wrong[5] = (right[5] + 1) % 10
    (axes,) = sample_figure(data, wrong).axes
    words = [(text.get_text(), text.get_color()) for text in axes.texts]
    expected = [(str(kind), "black") for kind in right[:24].tolist()]
    expected[5] = (f"{wrong[5]}\n({right[5]})", "red")
    assert words == expected

    def red(predicted: torch.Tensor) -> int:
        r, g, b = np.moveaxis(drawn(sample_figure(data, predicted)).astype(int), -1, 0)
        return int(((r > 200) & (g < 100) & (b < 100)).sum())

    assert red(right) == 0 < red(wrong)


# Ends in three ways right after an epoch was logged, in processes forked from one that has imported all.
ENDS = """
import os, sys
from pathlib import Path
import torch
import torch.utils.tensorboard
from recipes.trainer.run_folder import RunFolder
from recipes.train import Config
from recipes.trainer.run import set_up, settings_of

torch.set_num_threads(1)
set_up(Config()).step()  # loads the kernels, too

def log_three_epochs(path):
    config = Config(epochs=9, batch_size=500, logdir=path)
    training = set_up(config)
    folder = RunFolder(path)
    folder.open(settings_of(config, training), training.data, fresh=False)
    folder.save(training.state_dict())
    while training.epochs_done < 3:
        folder.log(training, training.step())
    return folder

for way in ("sys.exit", "exception", "os._exit"):
    if os.fork() == 0:
        never_closed = log_three_epochs(Path(sys.argv[1]) / way)
        if way == "sys.exit":
            sys.exit(3)
        if way == "exception":
            raise RuntimeError("as planned")
        os._exit(3)
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)))
"""


@pytest.mark.slow
def test_nothing_is_lost_when_the_process_ends_without_closing_the_writer(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.stdout == "[1, 3, 3]\n", done.stderr
    for way in ("sys.exit", "exception", "os._exit"):
        events = events_of(tmp_path / way)
        for tag in CURVES_OF_EPOCHS:
            assert [step for step, _ in curve(events, tag)] == [1, 2, 3], way
        for tag in CURVES_OF_STEPS:
            assert [step for step, _ in curve(events, tag)] == list(range(1, 10)), way
        assert [h.step for h in events.Histograms("weights/output.bias")] == [1, 2, 3], way
        assert len(metrics_of(tmp_path / way)) == 3, way
