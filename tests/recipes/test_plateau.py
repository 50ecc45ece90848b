"""Reduce on plateau against a constant rate and step decay, and what comparisons of schedules share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from recipes import plateau
from recipes.common.data import Data, load_data
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import Epoch
from recipes.parts import schedule_runs
from recipes.parts.schedule_runs import Run, ends, lead, measure, points, search
from recipes.parts.statistics import mean_curve
from recipes.plateau import TRIED, Setting, epochs_at_first_rate, judge, too_early, train_once

from .conftest import SmokeRun, curves_of

SMOKE = plateau.SIZES["smoke"]
NAMES = ["constant", "step decay", "plateau", "no patience", "watches one batch", "both", "threshold 0.3"]


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("plateau").folder


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", "validation").first(64)


def test_the_result_holds_together(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert [row["name"] for row in result["rows"]] == NAMES
    for row in result["rows"]:
        assert len(row["accuracies"]) == SMOKE.seeds
        assert 1 <= row["epochs_at_first_rate"] <= SMOKE.epochs
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["spread"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        assert 0.5 < row["mean"] <= 1  # a tenth is chance

    best: dict[str, float] = {}
    for one in result["search"]:
        best[one["schedule"]] = max(best.get(one["schedule"], 0.0), one["validation_accuracy"])
    chosen = {row["name"]: row for row in result["rows"][:3]}
    for one in result["search"]:
        row = chosen[one["schedule"]]
        if all(one[key] == row[key] for key in ("lr", "drops", "patience")):
            assert one["validation_accuracy"] == best[one["schedule"]]


def test_pictures_and_curves_can_be_looked_at(folder: Path) -> None:
    assert imread(folder / "schedules.png").shape[1] == 900
    curves = curves_of(folder)
    steps = SMOKE.epochs * math.ceil((SMOKE.rows or 0) * 4 / 5 / SMOKE.batch_size)
    for name in NAMES:
        run = name.replace(", ", "_").replace(" ", "_")
        assert len(curves[f"learning_rate/{run}"]) == steps
        assert len(curves[f"training_loss/{run}"]) == SMOKE.epochs
        assert len(curves[f"test_accuracy/{run}"]) == SMOKE.epochs


def test_all_contenders_try_as_many_settings() -> None:
    assert {len(tried) for tried in TRIED.values()} == {6}
    for name, tried in TRIED.items():
        assert len(set(tried)) == 6
        assert {setting.schedule for setting in tried} == {name}


def pretend(monkeypatch: pytest.MonkeyPatch, curve: list[tuple[float, float]]) -> None:
    """Trainings whose epochs have these losses of the held-out rows and these of the last batch."""
    held_out = [math.nan]

    def train(model: Any, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> Iterator[Epoch]:
        for number, (mean, last) in enumerate(curve, start=1):
            lr = float(optimizer.param_groups[0]["lr"])
            optimizer.step()
            held_out[0] = mean
            yield Epoch(number, math.nan, math.nan, 0.5, [mean, last], [lr, lr])

    monkeypatch.setattr(plateau, "train", train)
    monkeypatch.setattr(plateau, "evaluate", lambda *_: (held_out[0], 0.5))


def rates(setting: Setting, data: Data, epochs: int) -> list[float]:
    """The rate of each epoch."""
    size = schedule_runs.Size("digits", "mlp", None, epochs, 32, search_seeds=1, seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule_runs.Size, "load", lambda self, split: data)
        run = train_once(setting, size, "validation", seed=0)
    assert run.lrs[::2] == run.lrs[1::2]
    return run.lrs[::2]


LOSS = st.floats(0.01, 10.0)


@settings(max_examples=40)
@given(
    curve=st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=25),
    lr=st.sampled_from([0.1, 0.025]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([1e-4, 0.3]),
    watched=st.sampled_from(["held out", "batch"]),
)
def test_plateaus_have_the_rates_of_torch(
    digits: Data, curve: list[tuple[float, float]], lr: float, patience: int, threshold: float, watched: Any
) -> None:
    setting = Setting("plateau", lr, patience=patience, threshold=threshold, watched=watched)
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch, curve)
        ours = rates(setting, digits, len(curve))

    theirs = []
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, threshold=threshold)
    for mean, last in curve:
        theirs.append(optimizer.param_groups[0]["lr"])
        scheduler.step(mean if watched == "held out" else last)
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_what_is_watched_is_neither_trained_on_nor_measured(digits: Data) -> None:
    train, inputs, targets = plateau.held_out(digits)
    assert (len(train.train_rows), len(inputs), len(targets)) == (51, 13, 13)
    assert torch.equal(torch.cat([train.train_inputs, inputs]), digits.train_inputs)
    assert torch.equal(torch.cat([train.train_targets, targets]), digits.train_targets)
    assert torch.equal(train.eval_inputs, digits.eval_inputs)


def test_constant_and_step_decay_have_the_rates_written_down(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, [(1.0, 1.0)] * 20)
    assert rates(Setting("constant", 0.1), digits, 20) == [0.1] * 20
    halves, thirds = (rates(Setting("step decay", 0.1, drops=n), digits, 20) for n in (1, 2))
    assert halves == pytest.approx([0.1] * 10 + [0.01] * 10)
    assert thirds == pytest.approx([0.1] * 7 + [0.01] * 7 + [0.001] * 6)


def test_noise_and_slow_progress_fool_what_acts_too_early(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mean falls by a tenth in every epoch; every other last batch is a hard one.
    means = [0.9**epoch for epoch in range(10)]
    pretend(monkeypatch, [(mean, mean * (2.0 if epoch % 2 else 0.5)) for epoch, mean in enumerate(means)])
    healthy = Setting("plateau", 0.1, patience=1)
    copies = {name: rates(one, digits, 10) for name, one in too_early(healthy).items()}
    assert rates(healthy, digits, 10) == [0.1] * 10
    assert copies["no patience"] == [0.1] * 10  # the mean is not noisy: nothing to be patient with
    assert copies["watches one batch"] == [0.1] * 10  # a single hard batch is put up with
    assert copies["both"][:4] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert copies["both"][-1] == pytest.approx(1e-5)  # four drops
    assert copies["threshold 0.3"][:4] == pytest.approx([0.1, 0.1, 0.1, 0.01])  # 0.9 and 0.81 are above 0.7
    assert list(copies) == NAMES[3:]


def test_a_training_that_diverges_counts_as_nothing_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = train_once(Setting("constant", 1e30), SMOKE, "validation", seed=0)
    assert run.losses == [math.inf] * SMOKE.epochs
    assert run.accuracies == [0.0] * SMOKE.epochs

    def breaks_later(model: Any, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> Iterator[Epoch]:
        optimizer.step()
        yield Epoch(1, 0.7, 0.7, 0.8, [0.7], [0.1])
        raise TrainingDivergedError("the loss is nan")

    monkeypatch.setattr(plateau, "train", breaks_later)
    run = train_once(Setting("constant", 0.1), SMOKE, "validation", seed=0)
    assert run.losses == [0.7] + [math.inf] * (SMOKE.epochs - 1)
    assert run.accuracies == [0.8] + [0.0] * (SMOKE.epochs - 1)


class Alone:
    """A report that only has jobs done."""

    def train_all(self, function: Any, jobs_of: Any, name: str) -> dict[Any, Any]:
        return {key: [function(*job) for job in jobs] for key, jobs in jobs_of.items()}

    def curve(self, *_: Any) -> None:
        """Nobody looks."""


A, B, C, D = (Setting("constant", lr) for lr in (0.1, 0.2, 0.3, 0.4))


def test_the_search_sees_validation_rows_only() -> None:
    seen: list[tuple[Setting, int, str]] = []

    def remember(setting: Setting, size: schedule_runs.Size, split: str, seed: int) -> Run:
        seen.append((setting, seed, split))
        return Run([0.1], [1.0, 0.9], [0.1, {A: 0.6, B: 0.7, C: 0.7, D: 0.5}[setting]])

    chosen, searched = search(Alone(), remember, {"one": [A, B], "two": [C, D]}, SMOKE, 5)
    assert chosen == {"one": B, "two": C}
    chosen["three"] = A
    tested, rows = measure(Alone(), remember, chosen, SMOKE, 5)
    assert [(row["name"], row["lr"], row["accuracies"]) for row in rows] == [
        ("one", 0.2, [0.7, 0.7]), ("two", 0.3, [0.7, 0.7]), ("three", 0.1, [0.6, 0.6])
    ]  # fmt: skip
    assert [(line["lr"], line["validation_accuracy"]) for line in searched] == [
        (0.1, 0.6), (0.2, 0.7), (0.3, 0.7), (0.4, 0.5)
    ]  # fmt: skip
    assert seen == [
        *((setting, 5, "validation") for setting in (A, B, C, D)),
        *((setting, seed, "test") for setting in (B, C, A) for seed in (5, 6)),
    ]
    assert {name: ends(runs) for name, runs in tested.items()} == {
        "one": [0.7, 0.7], "two": [0.7, 0.7], "three": [0.6, 0.6]
    }  # fmt: skip
    test_rows = set(load_data("digits", "test").eval_rows.tolist())
    data = SMOKE.load("validation")
    assert len(data.train_rows) == SMOKE.rows
    assert test_rows.isdisjoint(data.train_rows.tolist() + data.eval_rows.tolist())
    assert set(SMOKE.load("test").eval_rows.tolist()) == test_rows


def test_the_choice_is_the_best_mean_and_of_equals_the_first() -> None:
    def noisy(setting: Setting, size: schedule_runs.Size, split: str, seed: int) -> Run:
        # A has the best single training, B and C the better mean.
        values = {A: [0.9, 0.1], B: [0.6, 0.7], C: [0.7, 0.6]}[setting]
        return Run([0.1], [1.0], [values[seed]])

    size = replace(SMOKE, search_seeds=2)
    chosen, searched = search(Alone(), noisy, {"one": [A, B, C]}, size, seed=0)
    assert chosen == {"one": B}
    assert [line["validation_accuracy"] for line in searched] == pytest.approx([0.5, 0.65, 0.65])


def test_arithmetic_of_curves() -> None:
    assert mean_curve([[0.0, 4.0], [1.0, 8.0]]) == [0.5, 6.0]
    two_steps_an_epoch = Run([0.1, 0.1, 0.1, 0.1, 0.01, 0.01], [3.0, 2.0, 1.0], [0.1, 0.2, 0.3])
    assert epochs_at_first_rate(two_steps_an_epoch) == 2
    assert epochs_at_first_rate(Run([0.1] * 6, [3.0, 2.0, 1.0], [0.1, 0.2, 0.3])) == 3
    assert epochs_at_first_rate(Run([], [math.inf] * 3, [0.0] * 3)) == 0  # it diverged in the first step

    runs = [Run([], [], [0.9, 0.5]), Run([], [], [0.1, 0.7])]
    assert ends(runs) == [0.5, 0.7]  # the last epoch, not the best
    quiet = around(0.8, 0.01)
    assert lead(runs, quiet) == pytest.approx((-0.2, 0.02**0.5))
    assert lead(quiet, runs) == pytest.approx((0.2, 0.02**0.5))
    assert points(-0.2, 0.02**0.5) == "-20.0 points (spread 14.1)"


def around(mean: float, spread: float) -> list[Run]:
    """Two trainings whose accuracies at the end have this mean and this standard deviation."""
    return [Run([], [], [mean + side * spread / 2**0.5]) for side in (-1, 1)]


@pytest.mark.parametrize(
    ("constant", "early", "borne_out"),
    [
        (0.80, 0.70, True),
        (0.895, 0.70, False),
        (0.80, 0.895, False),
        (0.95, 0.70, False),
        (0.80, 0.95, False),
    ],
)
def test_the_verdict_follows_the_written_criterion(constant: float, early: float, borne_out: bool) -> None:
    means = {"plateau": 0.9, "constant": constant, "both": early}
    verdict = judge({name: around(mean, 0.01) for name, mean in means.items()})
    assert verdict.borne_out is borne_out
    for rival, words in ((constant, "against the best constant rate"), (early, "against its copy")):
        assert f"{100 * (0.9 - rival):+.1f} points (spread 1.0) {words}" in verdict.evidence
