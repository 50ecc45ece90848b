"""Theorem 1 of Reddi et al. (2018): the game's arithmetic in closed form, the play in plain numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes import adam_can_fail
from recipes.adam_can_fail import FIGURE_1, THEOREM_1, Problem, draw_spikes, drift, play, worst_regret

from .conftest import SmokeRun, curves_of


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("adam_can_fail").folder


def test_adam_ends_at_the_worst_point_and_the_others_at_the_best(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert len(result["rows"]) == 6
    for row in result["rows"]:
        failed = row["optimizer"] == "Adam"
        assert np.sign(row["x"]) == (1 if failed else -1)
        assert (
            row["average_regret"] > 1 / 3
        ) == failed  # half of 2/3, what the worst point costs for C = P = 3
        assert row["share_of_worst"] == pytest.approx(row["average_regret"] / (2 / 3))
    assert (
        result["memory"]["x"]["Adam"][0] > 0 > result["memory"]["x"]["Adam"][-1]
    )  # forgetting is the reason
    assert max(result["memory"]["x"]["AMSGrad"]) < -0.9


def test_the_curves_end_at_the_rows_of_the_table(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["pictures"] == ["periodic.png", "random.png", "memory.png"]
    curves = curves_of(folder)
    for row in result["rows"]:
        last = curves[f"x_{row['game']}/{row['optimizer']}"][-1]
        assert last.step == adam_can_fail.SIZES["smoke"].rounds
        assert last.value == pytest.approx(row["x"])
        paid = curves[f"average_regret_{row['game']}/{row['optimizer']}"][-1].value
        assert paid == pytest.approx(row["average_regret"])


def test_the_worst_point_costs_twice_the_mean_slope() -> None:
    assert worst_regret(THEOREM_1, 1 / 3) == pytest.approx(2 / 3)  # 2 (C - P + 1) / P
    assert worst_regret(FIGURE_1, 1 / 101) == pytest.approx(2 * (1010 - 100 * 10) / 101)
    assert worst_regret(FIGURE_1, 0.01) == pytest.approx(2 * (0.01 * 1010 - 0.99 * 10))


def test_the_problems_are_those_of_the_paper() -> None:
    spikes = draw_spikes(FIGURE_1, 20_000, games=10, seed=0)
    assert spikes[:, 0].nonzero().flatten().tolist() == list(
        range(0, 20_000, 101)
    )  # t mod 101 = 1, from t = 1
    assert spikes[:, 1:].double().mean() == pytest.approx(
        0.01, abs=0.001
    )  # four standard deviations are 0.0009
    assert not torch.equal(spikes[:, 1], spikes[:, 2])
    assert torch.equal(spikes, draw_spikes(FIGURE_1, 20_000, games=10, seed=0))
    assert THEOREM_1.betas == (0, 1 / (1 + THEOREM_1.spike**2))


def in_numpy(name: str, slopes: np.ndarray, problem: Problem) -> tuple[float, float]:
    """The paper's Algorithms 1 and 2 with bias correction, and Adagrad; x and average regret at the end."""
    x = m = s = largest = total = 0.0
    beta1, beta2 = problem.betas
    for t, g in enumerate(slopes, start=1):
        total += g * x - g * -1
        if name == "Adagrad":
            s += g**2
            x -= problem.lr * g / np.sqrt(s)
        else:
            m = beta1 * m + (1 - beta1) * g
            s = beta2 * s + (1 - beta2) * g**2
            largest = max(largest, s)
            scale = largest if name == "AMSGrad" else s
            x -= problem.lr / np.sqrt(t) * (m / (1 - beta1**t)) / np.sqrt(scale / (1 - beta2**t))
        x = min(1.0, max(-1.0, x))
    return x, total / len(slopes)


@pytest.mark.parametrize("name", ["Adam", "AMSGrad", "Adagrad"])
@pytest.mark.parametrize("problem", [THEOREM_1, FIGURE_1], ids=["theorem 1", "figure 1"])
def test_the_play_is_the_papers_recursion(name: str, problem: Problem) -> None:
    spikes = draw_spikes(problem, 250, games=2, seed=1)
    course = play(name, spikes, problem, lambda: None)
    assert course.rounds[0] == 1
    assert course.rounds[-1] == 250
    for game in range(3):
        slopes = np.where(spikes[:, game].numpy(), problem.spike, -problem.dip)
        x, regret = in_numpy(name, slopes, problem)
        assert course.x[-1, game].item() == pytest.approx(x, abs=1e-6)  # ε is 1e-8 there and 0 here
        assert course.regret[-1, game].item() == pytest.approx(regret, rel=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("beta2", [0.0, 0.1, 0.5, 0.99])
def test_the_drift_is_what_one_period_does_in_the_long_run(amsgrad: bool, beta2: float) -> None:
    problem = Problem(5.0, 1.0, period=4, chance=0.25, lr=1.0, betas=(0.0, beta2))
    s = largest = moved = 0.0
    for t in range(4 * 1000):
        g = 5.0 if t % 4 == 0 else -1.0
        s = beta2 * s + (1 - beta2) * g**2
        largest = max(largest, s)
        if t >= 4 * 999:  # the last period
            moved -= g / np.sqrt(largest if amsgrad else s)
    assert drift(amsgrad, beta2, problem) == pytest.approx(moved)


def test_without_memory_the_spike_is_worth_no_more_than_any_other_round() -> None:
    assert drift(False, 0.0, THEOREM_1) == pytest.approx(-1 + 2)
    assert drift(True, 0.0, THEOREM_1) == pytest.approx(-1 + 2 / 3)
