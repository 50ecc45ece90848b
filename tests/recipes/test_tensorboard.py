"""What TensorBoard shows of a run: asked for over HTTP, watched while it trains, and seen in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator

from recipes.common.model import mlp
from recipes.train import Config
from recipes.trainer.board import HPARAMS, LAYOUT, Board
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run
from recipes.trainer.run_folder import MAY_CHANGE

from ..browser import Browser
from .left_behind import curve, events_of, metrics_of
from .tensorboard_of_runs import (
    CURVES_OF_EPOCHS,
    CURVES_OF_STEPS,
    RUNS,
    TensorBoard,
    eventually,
    pixels,
)

ROOT = Path(__file__).resolve().parents[2]
# Saved after every step.
STOPPED = Config(optimizer="momentum", epochs=4, batch_size=500, save_every=0)


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
