"""What one run writes: files that agree with each other, whole after every epoch, and nobody else's."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from recipes.common.errors import FolderError
from recipes.train import Config
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run

from .left_behind import TRAINING_ROWS, event_files, events_of, metrics_of, result_of


def test_the_files_of_a_run_agree_with_each_other(tmp_path: Path) -> None:
    config = Config(
        optimizer="momentum", lr=0.05, epochs=3, batch_size=100, seed=5, logdir=tmp_path / "new" / "run"
    )
    seen: list[Epoch] = []
    result = run(config, seen.append)

    folder = config.logdir
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "config.json",
        "confusion.png",
        "metrics.jsonl",
        "predictions.png",
        "result.json",
        "step-0000000000.torchopt_course.pt",
        "step-0000000045.torchopt_course.pt",
        event_files(folder)[0].name,
    }
    settings = json.loads((folder / "config.json").read_text())
    assert settings.pop("written_by")
    asked = {**dataclasses.asdict(config), "logdir": str(folder)}
    assert {name: settings[name] for name in asked if name != "fresh"} == {
        name: value for name, value in asked.items() if name != "fresh"
    }
    assert settings["weights"] == sum(p.numel() for p in result.model.parameters())

    written, metrics = result_of(folder), metrics_of(folder)
    assert written == {name: value for name, value in vars(result).items() if name != "model"}
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert {name: written[name] for name in ("accuracy", "loss", "train_loss")} == {
        name: metrics[-1][name] for name in ("accuracy", "loss", "train_loss")
    }
    assert written["seconds"] == pytest.approx(sum(line["seconds"] for line in metrics))
    # More than one microsecond; and the 45 steps lie within the training time.
    assert 1 < written["step_microseconds"] < 2e6 * written["seconds"] / 45
    assert (written["optimizer"], written["lr"], written["seed"], written["epochs"]) == (
        "momentum",
        0.05,
        5,
        3,
    )
    assert written["torch_version"] == torch.__version__


def test_tensorboard_shows_what_metrics_jsonl_says(tmp_path: Path) -> None:
    result = run(Config(epochs=3, batch_size=100, logdir=tmp_path))
    events, metrics = events_of(tmp_path), metrics_of(tmp_path)

    for tag, name in {
        "loss/train": "train_loss",
        "loss/eval": "loss",
        "accuracy/eval": "accuracy",
        "update_to_weight_ratio": "update_ratio",
    }.items():
        shown = [(point.step, point.value) for point in events.Scalars(tag)]
        assert [step for step, _ in shown] == [1, 2, 3]
        assert [value for _, value in shown] == pytest.approx([line[name] for line in metrics], rel=1e-6)

    steps = events.Scalars("loss/train_step")
    assert [point.step for point in steps] == list(range(1, 46))  # 15 batches an epoch, the last of 37 rows
    first_epoch = sum(point.value * rows for point, rows in zip(steps, [100] * 14 + [37], strict=False))
    assert first_epoch / TRAINING_ROWS == pytest.approx(metrics[0]["train_loss"], rel=1e-5)

    for name, weight in result.model.named_parameters():
        histograms = events.Histograms(f"weights/{name}")
        assert [point.step for point in histograms] == [1, 2, 3]
        last = histograms[-1].histogram_value
        assert last.num == weight.numel()
        assert last.min == pytest.approx(weight.min().item())
        assert last.max == pytest.approx(weight.max().item())


def test_every_epoch_is_on_the_disk_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorBoard writes in a thread of its own. On a slow disk it lags behind unless somebody waits for it.
    at_once = RecordWriter.write

    def slowly(writer: RecordWriter, record: bytes) -> None:
        time.sleep(0.005)
        at_once(writer, record)

    monkeypatch.setattr(RecordWriter, "write", slowly)

    def look(epoch: Epoch) -> None:
        assert len(metrics_of(tmp_path)) == epoch.epoch
        assert len(events_of(tmp_path).Histograms("weights/output.bias")) == epoch.epoch

    run(Config(epochs=2, batch_size=500, logdir=tmp_path), look)


def test_a_fresh_run_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    run(Config(epochs=3, batch_size=500, logdir=tmp_path))
    (old_events,) = event_files(tmp_path)
    foreign = {
        "notes.txt": "mine",
        "events.out.tfevents.1.host.1.0": "of another program",
        "metrics.csv": "mine",
        "checkpoint/weights.pt": "mine",
    }
    for name, text in foreign.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    run(Config(epochs=2, batch_size=500, logdir=tmp_path, optimizer="sgd", fresh=True))
    assert not old_events.exists()
    assert len(event_files(tmp_path)) == 2  # the new run's, and the foreign one
    assert len(metrics_of(tmp_path)) == 2
    assert result_of(tmp_path)["optimizer"] == "sgd"
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"] == "sgd"
    assert {name: (tmp_path / name).read_text() for name in foreign} == foreign


def test_a_run_that_breaks_off_leaves_no_result_of_an_earlier_run(tmp_path: Path) -> None:
    config = Config(epochs=2, batch_size=500, logdir=tmp_path)
    run(config)
    threads = threading.active_count()

    def break_off(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(config, fresh=True), break_off)
    assert threading.active_count() == threads  # TensorBoard's writing thread has ended: the file is closed
    assert not (tmp_path / "result.json").exists()
    assert len(metrics_of(tmp_path)) == 1
    assert len(events_of(tmp_path).Scalars("loss/train")) == 1

    assert len(event_files(tmp_path)) == 1


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
def test_files_of_another_program_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(FolderError, match="another program"):
        run(Config(epochs=1, logdir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"theirs": 1}'
