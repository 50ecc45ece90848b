"""What TensorBoard shows of a run: read back from the files, asked for over HTTP, and seen in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.common.data import load_data
from recipes.common.model import mlp
from recipes.train import Config
from recipes.trainer.board import HPARAMS, LAYOUT, Board
from recipes.trainer.measure import Epoch
from recipes.trainer.pictures import confusion_figure, sample_figure
from recipes.trainer.run import run, set_up
from recipes.trainer.run_folder import MAY_CHANGE

from ..browser import Browser

ROOT = Path(__file__).resolve().parents[2]
TRAINING_ROWS = 1437
PATIENCE = 60.0  # seconds; a busy machine is no failure

# 3 steps an epoch. The one that is stopped is saved after every step.
RUNS = {
    "adam": Config(optimizer="adam", scheduler="cyclic", epochs=2, batch_size=500),
    "adagrad": Config(optimizer="adagrad", lr=0.05, epochs=2, batch_size=500, amp=True),
}
STOPPED = Config(optimizer="momentum", epochs=4, batch_size=500, save_every=0)

CURVES_OF_EPOCHS = {
    "accuracy/eval": "accuracy",
    "loss/eval": "loss",
    "loss/train": "train_loss",
    "update_to_weight_ratio": "update_ratio",
}
CURVES_OF_STEPS = ["gradient_norm", "loss/train_step", "schedule/learning_rate", "schedule/momentum"]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs."""
    folder = tmp_path_factory.mktemp("logs")
    for name, config in RUNS.items():
        run(dataclasses.replace(config, logdir=folder / name))
    return folder


def events_of(folder: Path) -> EventAccumulator:
    everything = {"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def curve(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in events.Scalars(tag)]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def drawn(figure: Any) -> np.ndarray:
    """The pixels of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return pixels(buffer.getvalue())


# ---------------------------------------------------------------- in the files


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


# ---------------------------------------------------------------- over HTTP


class TensorBoard:
    """A running TensorBoard."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: object) -> bytes:
        address = f"{self.url}data/{path}?{urllib.parse.urlencode(query)}"
        with self.opener.open(address, timeout=PATIENCE) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def ask(self, path: str, **query: object) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, content: object) -> Any:
        request = urllib.request.Request(
            f"{self.url}data/{path}", json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with self.opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def steps(self, name: str, tag: str) -> list[int]:
        """Where the curve of a run has points; none if TensorBoard does not know it."""
        if tag not in self.ask("plugin/scalars/tags").get(name, {}):
            return []
        return [step for _, step, _ in self.ask("plugin/scalars/scalars", run=name, tag=tag)]


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def board(logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorBoard]:
    """TensorBoard on a free port, for all tests of this file."""
    output = tmp_path_factory.mktemp("tensorboard") / "output"
    words = ["--logdir", logdir, "--host", "127.0.0.1", "--port", "0", "--reload_interval", "1"]
    with open(output, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with the data server that it starts
        )
    try:
        eventually(lambda: "http://" in output.read_text() or process.poll() is not None, "TensorBoard's URL")
        url = re.search(r"http://127\.0\.0\.1:\d+/", output.read_text())
        assert url, output.read_text()
        board = TensorBoard(url[0])
        eventually(lambda: all(board.steps(name, "loss/train") == [1, 2] for name in RUNS), "the runs")
        yield board
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_tensorboard_shows_each_run_once_with_all_its_curves(board: TensorBoard, logdir: Path) -> None:
    assert {name for name in board.ask("runs") if not name.startswith("stopped")} == {*RUNS}
    for name in RUNS:
        metrics, events = metrics_of(logdir / name), events_of(logdir / name)
        assert set(board.ask("plugin/scalars/tags")[name]) == set(events.Tags()["scalars"])
        for tag in events.Tags()["scalars"]:
            shown = [
                (step, value) for _, step, value in board.ask("plugin/scalars/scalars", run=name, tag=tag)
            ]
            assert shown == curve(events, tag)
        shown = [value for _, _, value in board.ask("plugin/scalars/scalars", run=name, tag="loss/train")]
        assert shown == pytest.approx([line["train_loss"] for line in metrics], rel=1e-6)


def test_tensorboard_shows_histograms(board: TensorBoard) -> None:
    parameters = [name for name, _ in mlp(8, 10).named_parameters()]
    groups = ("weights", "gradients", "log10_effective_step_size")
    for name in RUNS:
        assert set(board.ask("plugin/histograms/tags")[name]) == {
            f"{g}/{p}" for g in groups for p in parameters
        }
        shown = board.ask("plugin/histograms/histograms", run=name, tag="weights/hidden.weight")
        assert [step for _, step, _ in shown] == [1, 2]
        assert [sum(count for _, _, count in bins) for _, _, bins in shown] == [64 * 64] * 2


def test_tensorboard_shows_images(board: TensorBoard) -> None:
    for name in RUNS:
        assert set(board.ask("plugin/images/tags")[name]) == {"predictions", "confusion"}
        for tag in ("predictions", "confusion"):
            shown = board.ask("plugin/images/images", run=name, tag=tag, sample=0)
            assert [image["step"] for image in shown] == [1, 2]
            for image in shown:
                query = dict(urllib.parse.parse_qsl(image["query"]))
                picture = pixels(board.get("plugin/images/individualImage", **query))
                assert min(picture.shape[:2]) > 300
                assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_tensorboard_shows_the_config_as_text(board: TensorBoard, logdir: Path) -> None:
    for name in RUNS:
        assert board.ask("plugin/text/tags")[name] == ["config/text_summary"]
        text = board.ask("plugin/text/text", run=name, tag="config/text_summary")[0]["text"]
        code = re.search(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
        assert code
        shown = json.loads(code[1].replace("&quot;", '"'))
        written = json.loads((logdir / name / "config.json").read_text())
        assert written.pop("written_by")
        assert shown == written


def test_tensorboard_lays_the_curves_out(board: TensorBoard) -> None:
    shown = {
        category["title"]: {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
        for category in board.ask("plugin/custom_scalars/layout")["category"]
    }
    assert shown == {
        title: {name: tags for name, (_, tags) in charts.items()} for title, charts in LAYOUT.items()
    }
    found: list[str] = []
    for charts in shown.values():
        for tags in charts.values():
            axes = set()
            for tag in tags:
                answer = board.ask("plugin/custom_scalars/scalars", run="adam", tag=tag)
                assert answer["regex_valid"]
                found += answer["tag_to_events"]
                axes |= {len(points) for points in answer["tag_to_events"].values()}
            assert axes in ({2}, {6})  # epochs and steps do not share a chart
    assert sorted(found) == sorted([*CURVES_OF_EPOCHS, *CURVES_OF_STEPS])  # each in one chart, and none empty


def test_runs_are_rows_of_one_table_with_the_accuracies_of_their_results(
    board: TensorBoard, logdir: Path
) -> None:
    assert not HPARAMS.keys() & MAY_CHANGE  # TensorBoard keeps the row that it read first
    table = board.post("plugin/hparams/experiment", {})
    kinds = {str: "DATA_TYPE_STRING", bool: "DATA_TYPE_BOOL"}
    assert {info["name"]: info["type"] for info in table["hparamInfos"]} == {
        name: kinds.get(kind, "DATA_TYPE_FLOAT64") for name, kind in HPARAMS.items()
    }
    # TensorBoard opens the table with the first five.
    first = [info["name"] for info in table["hparamInfos"][:5]]
    assert first == ["batch_size", "lr", "model", "optimizer", "scheduler"]
    metrics = [info["name"]["tag"] for info in table["metricInfos"]]
    assert metrics == ["accuracy/eval", "loss/eval", "loss/train"]

    request = {
        "startIndex": 0,
        "sliceSize": 100,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": {"tag": tag, "group": ""}} for tag in metrics],
    }
    groups = board.post("plugin/hparams/session_groups", request)["sessionGroups"]
    rows = {group["name"]: group for group in groups if not group["name"].startswith("stopped")}
    assert set(rows) == {*RUNS}
    for name, row in rows.items():
        config = json.loads((logdir / name / "config.json").read_text())
        assert row["hparams"] == {key: kind(config[key]) for key, kind in HPARAMS.items()}
        result = json.loads((logdir / name / "result.json").read_text())
        shown = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        assert shown == {
            "accuracy/eval": pytest.approx(result["accuracy"], rel=1e-6),
            "loss/eval": pytest.approx(result["loss"], rel=1e-6),
            "loss/train": pytest.approx(result["train_loss"], rel=1e-6),
        }
        assert [session["status"] for session in row["sessions"]] == ["STATUS_SUCCESS"]


# ---------------------------------------------------------------- stopped and taken up again


class Stop(Exception):
    pass


def test_curves_of_a_run_that_was_taken_up_again_have_neither_gaps_nor_duplicates(
    board: TensorBoard, logdir: Path
) -> None:
    """TensorBoard watches all the time, and has seen an epoch that is trained once more."""
    config = dataclasses.replace(STOPPED, logdir=logdir / "stopped")
    reader = plugin_event_accumulator.EventAccumulator(
        str(config.logdir), tensor_size_guidance={"scalars": 0}
    )

    def watched(epoch: Epoch) -> None:
        if epoch.epoch == 3:  # logged, but the newest checkpoint was made a step earlier
            eventually(lambda: board.steps("stopped", "loss/train") == [1, 2, 3], "the first part")
            eventually(lambda: board.steps("stopped", "loss/train_step") == [*range(1, 10)], "the first part")
            reader.Reload()
            raise Stop

    with pytest.raises(Stop):
        run(config, watched)
    run(config)
    files = sorted(config.logdir.glob("events.out.*"), key=lambda file: file.stat().st_ctime)
    assert len(files) == 2
    assert files == sorted(files)  # in this order they are read

    eventually(lambda: 4 in board.steps("stopped", "loss/train"), "the second part")
    eventually(lambda: 12 in board.steps("stopped", "loss/train_step"), "the second part")
    events, metrics = events_of(config.logdir), metrics_of(config.logdir)
    for tag, field in CURVES_OF_EPOCHS.items():
        expected = [(line["epoch"], pytest.approx(line[field], rel=1e-6)) for line in metrics]
        assert curve(events, tag) == expected
        assert board.steps("stopped", tag) == [1, 2, 3, 4]
    reader.Reload()
    for tag in CURVES_OF_STEPS:
        assert [step for step, _ in curve(events, tag)] == list(range(1, 13))
        assert board.steps("stopped", tag) == list(range(1, 13))
        # TensorBoard's reader without the fast data server, which has watched as well.
        assert [point.step for point in reader.Tensors(tag)] == list(range(1, 13))

    # The same curves as those of a run that nobody stopped.
    run(dataclasses.replace(config, logdir=logdir / "stopped-not"))
    whole = events_of(logdir / "stopped-not")
    assert {t: curve(events, t) for t in events.Tags()["scalars"]} == {
        t: curve(whole, t) for t in whole.Tags()["scalars"]
    }


def test_a_file_is_named_after_those_that_must_be_read_before_it(tmp_path: Path) -> None:
    now = int(time.time())
    (tmp_path / f"events.out.tfevents.{now + 1}.host.99.0.torchopt_course").touch()
    (tmp_path / f"events.out.tfevents.{now + 500}.host.99.0").touch()  # of another program
    Board(tmp_path, {}, from_step=1).close()
    *earlier, new = sorted(tmp_path.glob("*.torchopt_course"))
    assert [file.stat().st_size for file in earlier] == [0]
    assert new.stat().st_size > 0


# ---------------------------------------------------------------- in a browser


ALL_CURVES = "tagFilter=" + "|".join(sorted({*CURVES_OF_EPOCHS, *CURVES_OF_STEPS}))
SIZE = {"width": 1400, "height": 1400, "offline": False}


@pytest.mark.slow
def test_a_browser_shows_a_card_for_every_curve(board: TensorBoard, browser: Browser, logdir: Path) -> None:
    browser.open(f"{board.url}?{ALL_CURVES}#timeseries", **SIZE)
    # The title of each card; below a chart stand the last values of its curves.
    wanted = [f'title="{re.escape(tag)}"' for tag in (*CURVES_OF_EPOCHS, *CURVES_OF_STEPS)]
    for name in RUNS:
        wanted += [rf">\s*{name}\s*<", rf">\s*{metrics_of(logdir / name)[-1]['accuracy']:.4g}\s*<"]

    def missing() -> list[str]:
        page = browser.run("return document.documentElement.outerHTML;")
        return [pattern for pattern in wanted if not re.search(pattern, page)]

    eventually(lambda: not missing(), "a card for every curve")


@pytest.mark.slow
def test_a_browser_draws_the_curves(board: TensorBoard, browser: Browser, tmp_path: Path) -> None:
    artefacts = ROOT / "artefacts"
    with contextlib.suppress(OSError):
        artefacts.mkdir(exist_ok=True)
    picture = (artefacts if os.access(artefacts, os.W_OK) else tmp_path) / "tensorboard.png"
    browser.open(f"{board.url}#scalars&{ALL_CURVES}", **SIZE)

    def drawn_in_both_colors() -> bool:
        browser.picture(picture)
        image = np.asarray(Image.open(picture).convert("RGB"))
        assert image.shape == (1400, 1400, 3)
        charts = image[200:, 370:1050].reshape(-1, 3)
        first_two = [(255, 112, 67), (0, 119, 187)]  # of TensorBoard's colours
        return all((charts == color).all(axis=1).sum() > 300 for color in first_two)

    eventually(drawn_in_both_colors, f"two curves: {picture}")
