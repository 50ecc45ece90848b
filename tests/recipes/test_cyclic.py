"""Cyclical rates in half the epochs, against a constant rate and a decay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import torchopt_course as optim
from recipes import cyclic
from recipes.common.data import Data, load_data
from recipes.common.errors import UserError
from recipes.common.loop import train
from recipes.cyclic import Setting, judge, range_test, to_try, train_once
from recipes.parts.schedule_runs import Size

from .conftest import SmokeRun, curves_of
from .test_plateau import around

SMOKE = cyclic.SIZES["smoke"]
NAMES = ["constant", "constant, half", "linear decay", "triangular", "triangular2", "exp_range"]
BATCHES = 4  # in an epoch of the 120 rows below
TINY = Size("digits", "mlp", rows=120, epochs=12, batch_size=32, search_seeds=1, seeds=2)


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("cyclic").folder


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", "validation").first(120)


def test_the_result_holds_together(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == NAMES
    for row in rows.values():
        assert len(row["accuracies"]) == SMOKE.seeds
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
        assert row["spread"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        assert 0.5 < row["mean"] <= 1  # a tenth is chance

    for row in rows.values():
        rivals = [
            one
            for one in result["search"]
            if (one["schedule"], one["epochs"]) == (row["schedule"], row["epochs"])
        ]
        assert len(rivals) == 6
        [mine] = [one for one in rivals if all(one[key] == row[key] for key in ("lr", "cycles"))]
        assert mine["validation_accuracy"] == max(one["validation_accuracy"] for one in rivals)


def test_pictures_and_curves_can_be_looked_at(folder: Path) -> None:
    board, curves = EventAccumulator(str(folder)).Reload(), curves_of(folder)
    assert set(board.Tags()["images"]) == {"cyclic/range_test", "cyclic/schedules"}
    batches = math.ceil((SMOKE.rows or 0) / SMOKE.batch_size)
    for name in NAMES:
        run = name.replace(", ", "_").replace(" ", "_")
        epochs = SMOKE.epochs if name == "constant" else SMOKE.epochs // 2
        assert len(curves[f"learning_rate/{run}"]) == epochs * batches
        assert len(curves[f"training_loss/{run}"]) == epochs
        assert len(curves[f"test_accuracy/{run}"]) == epochs


def found(base_lr: float | None = 0.001, max_lr: float | None = 0.02) -> optim.lr_scheduler.RangeTest:
    return optim.lr_scheduler.RangeTest([], [], [], [], "exponential", "", base_lr, max_lr, "too noisy")


def test_budgets_are_equal() -> None:
    tried = to_try(found(), epochs=12)
    assert list(tried) == NAMES
    for name, settings in tried.items():
        assert len(set(settings)) == 6
        assert {setting.epochs for setting in settings} == ({12} if name == "constant" else {6})
    cyclical = [setting for name in NAMES[3:] for setting in tried[name]]
    assert {setting.base_lr for setting in cyclical} == {0.001}
    assert {round(setting.lr, 9) for setting in cyclical} == {0.02, 0.06, 0.2}
    assert all(size.epochs % 2 == 0 for size in cyclic.SIZES.values())  # half of them is a whole number


def test_a_range_test_without_bounds_is_an_error() -> None:
    with pytest.raises(UserError, match="no bounds: too noisy"):
        to_try(found(None, None), epochs=12)


def rates(setting: Setting) -> np.ndarray[Any, Any]:
    run = train_once(setting, TINY, "validation", seed=0)
    assert len(run.losses) == len(run.accuracies) == setting.epochs
    return np.array(run.lrs)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("cycles", [1, 2, 3, 4])
def test_cycles_have_the_rates_of_the_paper(mode: Any, cycles: int) -> None:
    epochs, base_lr, max_lr = 6, 0.001, 0.1
    steps = epochs * BATCHES
    step_size = steps // (2 * cycles)
    t = np.arange(steps)
    cycle = np.floor(1 + t / (2 * step_size))
    x = np.abs(t / step_size - 2 * cycle + 1)
    scale = {"triangular": 1.0, "triangular2": 0.5 ** (cycle - 1), "exp_range": 0.1 ** (t / steps)}[mode]
    expected = base_lr + (max_lr - base_lr) * np.maximum(0, 1 - x) * scale
    np.testing.assert_allclose(rates(Setting(mode, max_lr, epochs, base_lr, cycles)), expected, rtol=1e-9)
    assert expected.argmin() == 0  # whole cycles: the training ends low, but not lower than it began


def test_steps_that_cycles_do_not_divide_begin_no_new_cycle() -> None:
    lrs = rates(Setting("triangular", 0.1, 5, 0.001, 3))  # 20 steps: cycles of 8, not of 6 and two more
    assert lrs.tolist() == pytest.approx(rates(Setting("triangular", 0.1, 6, 0.001, 3))[:20].tolist())


def test_the_decay_is_a_straight_line_to_zero() -> None:
    steps = 6 * BATCHES
    expected = 0.1 * (1 - np.arange(steps) / steps)
    np.testing.assert_allclose(rates(Setting("linear decay", 0.1, 6)), expected, rtol=1e-9)


def test_a_constant_rate_trains_as_the_common_loop_does(digits: Data) -> None:
    # One batch, so that the order of the rows is no matter.
    size = Size("digits", "mlp", rows=120, epochs=3, batch_size=120, search_seeds=1, seeds=2)
    run = train_once(Setting("constant", 0.05, 3), size, "validation", seed=7)
    assert run.lrs == [0.05] * 3
    model, _ = size.model_and_optimizer(digits, 0.05, 7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    epochs = list(train(model, optimizer, digits, epochs=3, batch_size=120, seed=0))
    assert run.losses == pytest.approx([epoch.train_loss for epoch in epochs], rel=1e-5)
    assert run.accuracies == pytest.approx([epoch.accuracy for epoch in epochs], abs=0.004)  # one row of 288


def test_a_training_that_diverges_counts_as_nothing_right() -> None:
    run = train_once(Setting("constant", 1e30, 3), TINY, "validation", seed=0)
    assert run.losses == [math.inf] * 3
    assert run.accuracies == [0.0] * 3


def test_the_range_test_sees_training_rows_only(digits: Data) -> None:
    poisoned = Data(
        **{**vars(digits), "eval_inputs": torch.full_like(digits.eval_inputs, math.nan)}  # would end the test
    )
    test = range_test(TINY, poisoned, seed=0)
    assert len(test.lrs) > 100
    assert test.lrs[0] == 1e-5
    assert 1e-5 < (test.base_lr or 0) < (test.max_lr or 0) < 1


@pytest.mark.parametrize(
    ("triangular", "borne_out"), [(0.90, True), (0.92, True), (0.899, False), (0.8, False)]
)
def test_the_verdict_follows_the_written_criterion(triangular: float, borne_out: bool) -> None:
    means = {"constant": 0.9, "linear decay": 0.91, "triangular": triangular}
    verdict = judge({name: around(mean, 0.01) for name, mean in means.items()}, epochs=8)
    assert verdict.borne_out is borne_out
    over_constant, over_decay = (
        f"{100 * (triangular - other):+.1f} points (spread 1.0)" for other in (0.9, 0.91)
    )
    assert f"after 4 epochs, the constant rate 90.0% after 8, {over_constant};" in verdict.evidence
    assert f"triangular is {over_decay}" in verdict.evidence
