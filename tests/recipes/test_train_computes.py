"""What one run computes: its order of rows, its schedule, its weights, and what it measures of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

import torchopt_course as optim
from recipes.common.data import load_data
from recipes.common.model import mlp
from recipes.common.optimizers import LEARNING_RATES
from recipes.train import Config
from recipes.trainer.run import run, set_up
from recipes.trainer.training import Training

from .left_behind import TRAINING_ROWS, events_of, metrics_of, result_of


def digest(model: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


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
