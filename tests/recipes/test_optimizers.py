"""The comparison of optimizers: equal budgets, honest rows, and the arithmetic of targets and choices."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from torch.nn import functional as F

from recipes.common.loop import steps
from recipes.common.model import make_model
from recipes.common.pictures import COLORS
from recipes.optimizers import CLAIM, SIZES, choice, default_rate, final_jobs, tuning_trials, verdict
from recipes.parts.statistics import lead
from recipes.parts.trials import (
    CONTENDERS,
    Budget,
    Contest,
    Outcome,
    Result,
    Task,
    Trial,
    run_trial,
)  # fmt: skip

from .conftest import SmokeRun, curves_of

NAN, MISSED = math.nan, math.inf
TASK = Task("digits", train_rows=100, validation_rows=50, model="mlp", batch_size=32)


@pytest.mark.parametrize(
    ("accuracy", "steps"),
    [
        ([0.1, 0.5, 0.9], 30),
        ([0.1, 0.8, 0.7], 20),  # exactly the target, and the first time counts
        ([0.9, 0.1, 0.1], 10),
        ([0.1, 0.2, 0.799], MISSED),
        ([NAN, NAN, 0.9], 30),
        ([0.5, NAN, NAN], MISSED),
        ([0.0, 0.0, 0.0], MISSED),
    ],
)
def test_steps_to_the_target(accuracy: list[float], steps: float) -> None:
    assert Outcome([10, 20, 30], accuracy, NAN).steps_to(0.8) == steps


@pytest.mark.parametrize(
    ("first_steps", "median"),
    [
        ([10, 20, 30, 40, 50], 30),
        ([10, MISSED, 30, MISSED, 50], 50),  # two of five may miss
        ([10, MISSED, 30, MISSED, MISSED], MISSED),
        ([10, MISSED], MISSED),  # half is not most
    ],
)
def test_the_median_over_seeds_takes_a_miss_for_infinite(first_steps: list[float], median: float) -> None:
    looks = [10, 20, 30, 40, 50]
    outcomes = [Outcome(looks, [float(step >= first) for step in looks], NAN) for first in first_steps]
    contest = Contest(Budget(epochs=1, target=0.8), tuned=True)
    chosen = Trial("Adam", 0.1, "constant", epochs=1)
    assert Result(contest, chosen, outcomes).median_steps == median


def test_the_choice_is_the_highest_accuracy_of_the_optimizers_own_trials() -> None:
    size = SIZES["smoke"]
    trials = [t for budget in (size.short, size.long) for t in tuning_trials(size, budget)]
    adams = [t for t in trials if (t.optimizer, t.epochs) == ("Adam", size.long.epochs)]
    accuracies = {**dict.fromkeys(trials, 0.9), **dict.fromkeys(adams, 0.0), adams[2]: 0.5, adams[4]: 0.5}
    tuned = choice(Contest(size.long, tuned=True), "Adam", accuracies)
    assert tuned == adams[2]  # of equals the first
    default = choice(Contest(size.long, tuned=False), "Adam", accuracies)
    assert (default.lr, default.schedule, default.epochs) == (0.001, "constant", size.long.epochs)


def test_the_lead_and_its_error_are_welchs() -> None:
    ours, theirs = [0.91, 0.93, 0.92, 0.95], [0.90, 0.91, 0.93]
    difference, error = lead(ours, theirs)
    assert difference == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert difference / error == pytest.approx(ttest_ind(ours, theirs, equal_var=False).statistic)


@pytest.mark.parametrize("name", SIZES)
def test_everybody_has_the_same_budget(name: str) -> None:
    size = SIZES[name]
    for budget in (size.short, size.long):
        trials = tuning_trials(size, budget)
        assert len(set(trials)) == len(trials)
        without_name = {
            optimizer: Counter(
                replace(trial, optimizer="") for trial in trials if trial.optimizer == optimizer
            )
            for optimizer in size.contenders
        }
        first, *others = without_name.values()
        assert all(mine == first for mine in others)
        assert first.total() == 2 * len(size.rates)
        assert {trial.epochs for trial in trials} == {budget.epochs}
    assert size.short.epochs < size.long.epochs


@pytest.mark.parametrize("name", SIZES)
def test_the_grid_is_logarithmic_and_holds_the_default_rates(name: str) -> None:
    rates = SIZES[name].rates
    ratios = [b / a for a, b in itertools.pairwise(rates)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    for optimizer in CONTENDERS:
        assert any(math.isclose(default_rate(optimizer), rate) for rate in rates)


def test_a_choice_is_trained_from_fresh_seeds_and_otherwise_unchanged() -> None:
    size = SIZES["gallery"]
    chosen = tuning_trials(size, size.short)[3]
    jobs = final_jobs(size, chosen, seed=7)
    assert [seed for _, _, seed, _, _ in jobs] == [8, 9, 10, 11, 12]
    assert all(job[:2] == (size.task, chosen) and job[-1] for job in jobs)


def test_every_optimizer_has_a_colour_of_its_own() -> None:
    assert set(COLORS) == set(CONTENDERS)
    assert len(set(COLORS.values())) == len(COLORS)


def test_default_rates_are_torchs() -> None:
    for name, optimizer in {"SGD": "SGD", "Adagrad": "Adagrad", "RMSprop": "RMSprop", "Adam": "Adam"}.items():
        weight = torch.nn.Parameter(torch.zeros(1))
        assert default_rate(name) == getattr(torch.optim, optimizer)([weight]).defaults["lr"]


def test_the_rows_are_apart() -> None:
    validation, test = TASK.load("validation"), TASK.load("test")
    assert (len(validation.train_rows), len(validation.eval_rows), len(test.eval_rows)) == (100, 50, 360)
    assert len(validation.eval_inputs) == len(validation.eval_targets) == 50
    parts = [set(part.tolist()) for part in (validation.train_rows, validation.eval_rows, test.eval_rows)]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_an_epoch_sees_every_row_once() -> None:
    model = torch.nn.Linear(64, 10)
    training = steps(model, torch.optim.SGD(model.parameters()), TASK.load("validation"), 32, seed=0)
    epochs = [torch.cat([step.rows for step in itertools.islice(training, 4)]).tolist() for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(100))] * 2
    assert epochs[0] != epochs[1]


def test_a_trial_is_the_plain_loop_with_torchs_optimizer_and_schedule() -> None:
    outcome = run_trial(TASK, Trial("Nesterov", 0.3, "cosine", epochs=6), seed=4, looks=3, test=True)

    data = TASK.load("validation")
    model = make_model("mlp", data, seed=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=24)
    expected = []
    dice = torch.Generator().manual_seed(4)
    batches = [rows for _ in range(6) for rows in torch.randperm(100, generator=dice).split(32)]
    for step, rows in enumerate(batches, start=1):
        optimizer.zero_grad()
        F.cross_entropy(model(data.train_inputs[rows]), data.train_targets[rows]).backward()
        optimizer.step()
        scheduler.step()
        if step % 8 == 0:
            right = model(data.eval_inputs).argmax(dim=1) == data.eval_targets
            expected.append(right.float().mean().item())
    test = TASK.load("test")
    right = model(test.eval_inputs).argmax(dim=1) == test.eval_targets
    assert outcome.steps == [8, 16, 24]
    # One row may lie on the border between two classes, where the last bit decides.
    assert outcome.accuracy == pytest.approx(expected, abs=1 / 50 + 1e-6)
    assert outcome.test_accuracy == pytest.approx(right.float().mean().item(), abs=1 / 360 + 1e-6)
    assert outcome.accuracy[-1] > 0.5


def test_weights_that_diverged_answer_nothing_rightly() -> None:
    trial = Trial("SGD", 1e30, "constant", epochs=2)
    assert run_trial(TASK, trial, seed=0, looks=2, test=True) == Outcome([4, 8], [0.0, 0.0], 0.0)


def test_without_being_asked_no_test_row_is_measured() -> None:
    outcome = run_trial(TASK, Trial("SGD", 0.1, "constant", epochs=1), seed=0)
    assert math.isnan(outcome.test_accuracy)
    assert len(outcome.accuracy) == 1  # as a trial of the tuning


def results(*pairs: tuple[float, float]) -> list[Result]:
    """The means of Adam and of Momentum in three contests, from two seeds, a point to either side.

    Each mean then has a standard error of a point, their difference one of sqrt(2) points.
    """
    made = []
    for number, pair in enumerate(pairs):
        contest = Contest(Budget(epochs=number + 1, target=0.5), tuned=True)
        for name, mean in zip(("Adam", "Momentum"), pair, strict=True):
            choice = Trial(name, 0.1, "constant", epochs=1)
            outcomes = [Outcome([1], [0.5], mean + side) for side in (-0.01, 0.01)]
            made.append(Result(contest, choice, outcomes))
    return made


@pytest.mark.parametrize(
    ("default", "short", "long", "borne_out"),
    [
        ((0.8, 0.7), (0.8, 0.8), (0.8, 0.9), True),
        ((0.8, 0.7), (0.9, 0.8), (0.8, 0.9), True),
        ((0.8, 0.79), (0.8, 0.8), (0.8, 0.9), False),  # within two standard errors
        ((0.8, 0.7), (0.7, 0.8), (0.8, 0.9), False),  # tuned momentum is ahead in the hurry
        ((0.8, 0.7), (0.8, 0.8), (0.8, 0.81), False),
        ((0.8, 0.7), (0.8, 0.8), (0.9, 0.8), False),
    ],
)
def test_the_verdict_is_the_criterion(default: Any, short: Any, long: Any, borne_out: bool) -> None:
    judged = verdict(results(default, short, long))
    assert judged.borne_out is borne_out
    assert f"{100 * (long[0] - long[1]):+.1f} ± 1.4 points" in judged.evidence


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("optimizers").folder


def test_the_rows_of_all_contests(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["claim"] == CLAIM
    assert [row["optimizer"] for row in result["rows"]] == list(CONTENDERS) * 3
    for row in result["rows"]:
        assert any(math.isclose(row["lr"], rate) for rate in SIZES["smoke"].rates)
        assert row["test_accuracy"] == pytest.approx(np.mean(row["test_accuracy_of_seeds"]))
        assert row["test_accuracy_spread"] == pytest.approx(np.std(row["test_accuracy_of_seeds"], ddof=1))
        assert 1 <= row["good_rates"] <= row["rates"] == 3


def test_pictures_and_curves(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(folder)).Reload().Tags()
    pictures = ("sensitivity", "validation_accuracy", "test_accuracy")
    assert set(tags["images"]) == {f"optimizers/{name}" for name in pictures}
    contests = ("1_epoch/default_rate", "1_epoch/tuned", "3_epochs/tuned")
    assert set(curves_of(folder)) == {f"{contest}/{name}" for contest in contests for name in CONTENDERS}
