"""One run: what it computes, what it writes, and how it ends."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

import recipes
import torchopt_course as optim
from recipes.common.data import load_data
from recipes.common.errors import FolderError, OptionError, TrainingDivergedError
from recipes.common.model import mlp
from recipes.common.optimizers import LEARNING_RATES
from recipes.train import Config, main
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run, set_up
from recipes.trainer.training import Training

ROOT = Path(recipes.__file__).parents[1]
TRAIN_PY = ROOT / "recipes" / "train.py"
TRAINING_ROWS = 1437

Shell = Callable[..., subprocess.CompletedProcess[str]]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def result_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def digest(model: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


# ---------------------------------------------------------------- what is computed


def test_same_command_same_weights_other_seed_other_weights(tmp_path: Path) -> None:
    config = Config(epochs=2, logdir=tmp_path / "a")
    first = run(config)
    torch.rand(3)  # a random state that the caller has used must not matter
    again = run(dataclasses.replace(config, logdir=tmp_path / "b"))
    other = run(dataclasses.replace(config, logdir=tmp_path / "c", seed=1))

    assert first.weights_sha256 == digest(first.model) == result_of(tmp_path / "a")["weights_sha256"]
    assert again.weights_sha256 == first.weights_sha256
    assert other.weights_sha256 == digest(other.model) != first.weights_sha256


def test_every_epoch_takes_all_rows_once_in_an_order_that_the_seed_fixes() -> None:
    # With lr 0 the weights stay as they are, so that losses differ only by the rows they are taken on.
    data = load_data("digits", "test", torch.device("cpu"))
    model = mlp(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def losses(seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        training = Training(model, optimizer, data, batch_size=32, seed=seed)
        seen: list[float] = []
        for epoch in (1, 2):
            while training.epochs_done < epoch:
                measured = training.step()
                seen.append(training.meter.loss)
            assert measured
            assert measured.train_loss == pytest.approx(all_rows, rel=1e-5)
            assert measured.update_ratio == 0
        return tuple(seen[:45]), tuple(seen[45:])

    with torch.no_grad():
        all_rows = torch.nn.functional.cross_entropy(model(data.train_inputs), data.train_targets).item()
    first, second = losses(seed=0)
    assert len(first) == len(second) == 45
    assert first != second
    assert (first, second) == losses(seed=0)
    assert first != losses(seed=1)[0]


def test_a_run_takes_one_thread_and_gives_the_others_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    during: list[int] = []
    run(
        Config(epochs=1, batch_size=500, logdir=tmp_path),
        lambda epoch: during.append(torch.get_num_threads()),
    )
    assert during == [1]
    assert torch.get_num_threads() == 2


def test_accuracy_and_loss_are_those_of_the_final_weights(tmp_path: Path) -> None:
    result = run(Config(epochs=3, split="validation", logdir=tmp_path))
    data = load_data("digits", "validation", torch.device("cpu"))
    with torch.no_grad():
        chances = torch.softmax(result.model(data.eval_inputs).double(), dim=1).numpy()
    assert result.accuracy == accuracy_score(data.eval_targets, chances.argmax(axis=1))
    assert result.loss == pytest.approx(log_loss(data.eval_targets, chances), rel=1e-5)


def test_loss_gradient_norm_and_update_ratio_of_one_known_step(tmp_path: Path) -> None:
    # One batch with all rows and plain SGD: the step is -lr * gradient, so everything can be said beforehand.
    lr = 0.5
    run(Config(optimizer="sgd", lr=lr, epochs=1, batch_size=TRAINING_ROWS, seed=3, logdir=tmp_path))

    data = load_data("digits", "test", torch.device("cpu"))
    torch.manual_seed(3)
    model = mlp(8, 10).double()
    loss = torch.nn.functional.cross_entropy(model(data.train_inputs.double()), data.train_targets)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    grad_norm = math.sqrt(sum(float((g**2).sum()) for g in gradient))
    weight_norm = math.sqrt(sum(float((p.detach() ** 2).sum()) for p in model.parameters()))

    (line,) = metrics_of(tmp_path)
    assert line["epoch"] == 1
    assert line["lr"] == lr
    assert line["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["grad_norm"] == pytest.approx(grad_norm, rel=1e-4)
    assert line["update_ratio"] == pytest.approx(lr * grad_norm / weight_norm, rel=1e-4)


def test_the_update_ratio_is_that_of_the_last_step() -> None:
    data = load_data("digits", "test", torch.device("cpu"))
    model = mlp(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[torch.Tensor] = []  # all weights end to end, before every step

    def weights() -> torch.Tensor:
        return torch.cat([p.detach().double().flatten() for p in model.parameters()])

    optimizer.register_step_pre_hook(lambda *_: seen.append(weights()))
    (epoch,) = Training(model, optimizer, data, batch_size=300, seed=0).epochs(1)
    assert len(seen) == 5
    change = (weights() - seen[-1]).norm() / seen[-1].norm()
    assert epoch.update_ratio == pytest.approx(change.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", optim.SGD),
        ("momentum", optim.Momentum),
        ("adagrad", optim.Adagrad),
        ("rmsprop", optim.RMSprop),
        ("adam", optim.Adam),
        ("adamw", optim.AdamW),
    ],
)
def test_the_optimizer_is_ours_with_its_own_rate_unless_another_is_given(name: Any, kind: type) -> None:
    optimizer = set_up(Config(optimizer=name)).optimizer
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == LEARNING_RATES[name]
    optimizer = set_up(Config(optimizer=name, lr=0.007)).optimizer
    assert optimizer.param_groups[0]["lr"] == 0.007


def test_plateau_of_the_training_loss_lowers_the_rate_for_the_next_epoch(tmp_path: Path) -> None:
    # A rate so large that the loss only jumps about.
    config = Config(optimizer="sgd", lr=20.0, scheduler="plateau", epochs=16, batch_size=100, logdir=tmp_path)
    run(config)
    metrics = metrics_of(tmp_path)
    expected, lr, best, bad = [], 20.0, math.inf, 0
    for line in metrics:
        expected.append(lr)
        bad = 0 if line["train_loss"] < best * (1 - 1e-4) else bad + 1
        best = min(best, line["train_loss"])
        if bad > 3:
            lr, bad = lr / 10, 0
    assert [line["lr"] for line in metrics] == pytest.approx(expected)
    assert expected[-1] < 20.0


@pytest.mark.parametrize(
    ("optimizer", "momenta"),
    [("momentum", (0.9, 0.8)), ("adam", (0.9, 0.8)), ("sgd", (0.0, 0.0)), ("adagrad", None)],
)
def test_cyclic_rate_and_momentum_of_every_batch_are_in_tensorboard(
    optimizer: Any, momenta: tuple[float, float] | None, tmp_path: Path
) -> None:
    # 5 batches an epoch, 4 epochs a cycle: the peak is after 10 steps, the second cycle's is half as high.
    config = Config(
        optimizer=optimizer, lr=0.03, scheduler="cyclic", cycle_epochs=4, epochs=7, batch_size=300
    )
    run(dataclasses.replace(config, logdir=tmp_path))
    events = events_of(tmp_path)
    lrs = events.Scalars("schedule/learning_rate")
    assert [point.step for point in lrs] == list(range(1, 36))
    shown = [point.value for point in lrs]
    assert [shown[i] for i in (0, 5, 10, 20, 30)] == pytest.approx([0.03, 0.165, 0.3, 0.03, 0.165], rel=1e-6)
    assert [line["lr"] for line in metrics_of(tmp_path)] == pytest.approx(shown[4::5], rel=1e-6)
    if momenta is None:
        assert "schedule/momentum" not in events.Tags()["scalars"]
    else:
        values = [point.value for point in events.Scalars("schedule/momentum")]
        ends, peak = momenta
        assert [values[i] for i in (0, 5, 10, 20)] == pytest.approx([ends, (ends + peak) / 2, peak, ends])
    assert result_of(tmp_path)["scheduler"] == "cyclic"


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_our_own_autograd_trains_the_same_weights(model: Any, tmp_path: Path) -> None:
    # Dropout draws the same numbers; float32 sums in another order, which 23 steps of SGD hardly amplify.
    config = Config(model=model, optimizer="sgd", epochs=1, batch_size=64, logdir=tmp_path / "torch")
    theirs = run(config)
    ours = run(dataclasses.replace(config, autograd="mini", logdir=tmp_path / "mini"))
    for mine, other in zip(ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    assert ours.accuracy == pytest.approx(theirs.accuracy, abs=0.01)
    assert json.loads((tmp_path / "mini" / "config.json").read_text())["autograd"] == "mini"


# ---------------------------------------------------------------- what is written


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


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"optimizer": "sdg"}, "--optimizer"),
        ({"data": "mnist"}, "--data"),
        ({"model": "vgg"}, "--model"),
        ({"autograd": "jax"}, "--autograd"),
        ({"split": "train"}, "--split"),
        ({"scheduler": "cosine"}, "--scheduler"),
        ({"lr": -0.1}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"lr": math.inf}, "--lr"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"seed": -1}, "--seed"),
        ({"max_lr": 0.0005}, "--max-lr"),
        ({"cycle_epochs": 0}, "--cycle-epochs"),
        ({"save_every": math.nan}, "--save-every"),
        ({"device": "gpu"}, "--device"),
        ({"device": "meta"}, "--device"),
        ({"device": "cuda:99"}, "--device"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_written(
    change: dict[str, Any], option: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=option) as error:
        run(Config(**{"logdir": tmp_path / "run", **change}))
    assert str(next(iter(change.values()))) in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--optimizer", "sdg"], "invalid choice 'sdg' for argument '--optimizer'"),
        (["--lr", "fast"], "--lr"),
        (["--epochs", "3.5"], "--epochs"),
        (["--momentum", "0.9"], "--momentum has an effect only with --optimizer sgd or momentum or rmsprop"),
        (["--optimzer", "adam"], "Unrecognized options: --optimzer, adam; perhaps you meant --optimizer"),
        (["--epochs"], "--epochs"),
        (["--lr", "-1"], "--lr must be"),
        (["--epochs", "0"], "--epochs must be"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "cuda"], "0 CUDA devices"),
    ],
)
def test_a_bad_command_line_ends_in_one_line(
    words: list[str],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["train.py", "--logdir", str(tmp_path / "run"), *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("train.py: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["train.py", "--logdir", str(tmp_path / "file" / "run")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert str(tmp_path / "file" / "run") in capsys.readouterr().err


def test_a_diverging_run_names_epoch_and_step_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", f"train.py --optimizer sgd --lr 1e30 --logdir {tmp_path}".split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capsys.readouterr().err
    # Step 1 sees the initial weights and makes them some 1e28 large; the product of two layers overflows.
    assert "epoch 1, step 2" in said
    assert not (tmp_path / "result.json").exists()
    assert len(event_files(tmp_path)) == 1


def test_weights_broken_by_the_very_last_step_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="epoch 1, after step 1"):
        run(Config(optimizer="sgd", lr=1e38, epochs=1, batch_size=TRAINING_ROWS, logdir=tmp_path))
    assert metrics_of(tmp_path) == []


def test_ctrl_c_ends_in_one_line_and_readable_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pressed in the second epoch. (test_unkillable.py presses it in processes of their own.)"""
    steps = Training.step

    def pressing(training: Training) -> Any:
        if training.epochs_done == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return steps(training)

    monkeypatch.setattr(Training, "step", pressing)
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "100", "--logdir", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "the same command goes on from there" in said.err
    assert len(metrics_of(tmp_path)) == 1
    assert len(events_of(tmp_path).Scalars("loss/train")) == 1
    assert not (tmp_path / "result.json").exists()


# ---------------------------------------------------------------- as a user sees it


def test_help_names_every_option_with_its_default_and_does_not_wait_for_what_only_a_run_needs(
    shell: Shell,
) -> None:
    done = shell("-X", "importtime", "-m", "recipes.train", "--help", PYTHONPATH=str(ROOT))
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    for field in dataclasses.fields(Config):
        about = words.partition(f" --{field.name.replace('_', '-')} ")[2]
        default = about.partition("(default: ")[2].partition(")")[0]
        assert default == str(field.default) or (default and field.default is None)
    assert "None" not in words  # what an option that is not given comes to is said
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"tensorboard", "sklearn"}


def test_from_the_shell_the_last_line_is_the_result(shell: Shell, tmp_path: Path) -> None:
    # A TensorFlow that happens to be installed must not be imported: it takes seconds and prints warnings.
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    done = shell(TRAIN_PY, "--epochs", "2", "--logdir", "my runs/a", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar in a pipe
    *_, tensorboard_line, last = done.stdout.splitlines()
    assert json.loads(last) == result_of(tmp_path / "my runs" / "a")
    assert tensorboard_line.endswith("--logdir 'my runs/a'")
