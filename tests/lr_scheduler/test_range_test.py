"""The LR range test: the curve, where it ends, what it refuses, and what there is to look at."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchopt_course import lr_range_test
from torchopt_course.lr_scheduler import RangeTest

from .ranges import NOTHING, a_curve
from .twins import make_optimizer

# ---------------------------------------------------------------- the curve


def test_exponential_and_linear_rates() -> None:
    found = a_curve(lambda lr: 1.0, start_lr=1e-4, end_lr=1.0, iterations=5)
    assert found.lrs == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    found = a_curve(lambda lr: 1.0, start_lr=0.0, end_lr=1.0, iterations=5, spacing="linear")
    assert found.lrs == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert found.stopped == "after all 5 iterations"


@pytest.mark.parametrize("smoothing", [0.05, 0.4, 1.0])
def test_smoothing_is_a_weighted_mean_of_the_past(smoothing: float) -> None:
    losses = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    seen = iter(losses)
    found = lr_range_test(
        lambda batch: next(seen),
        [0],
        NOTHING,
        make_optimizer(),
        iterations=8,
        smoothing=smoothing,
        diverge_at=99,
    )
    assert found.losses == losses
    for i, smoothed in enumerate(found.smoothed):
        weights = [(1 - smoothing) ** (i - k) for k in range(i + 1)]
        assert smoothed == pytest.approx(np.average(losses[: i + 1], weights=weights))


def test_accuracy_is_recorded_if_given() -> None:
    optimizer = make_optimizer()
    found = lr_range_test(
        lambda batch: (torch.tensor(1.0, requires_grad=True), torch.tensor(0.25)),
        [0],
        NOTHING,
        optimizer,
        iterations=3,
    )
    assert found.accuracies == [0.25] * 3
    assert a_curve(lambda lr: 1.0, iterations=3).accuracies == []
    results = iter([1.0, (1.0, 0.5), 1.0])
    found = lr_range_test(lambda batch: next(results), [0], NOTHING, optimizer, iterations=3)
    assert found.accuracies == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    found.figure()


@pytest.mark.parametrize("offset", [0.0, 2.0, -50.0, 1000.0])
def test_stops_where_the_loss_is_far_above_the_range_that_it_came_through(offset: float) -> None:
    """It falls by 2; where zero lies does not matter: near 1000, losses are never 5 times the lowest."""

    def explosion(height: float) -> RangeTest:
        return a_curve(lambda lr: offset + (height if lr > 0.1 else 2 / (1 + lr / 1e-4)), smoothing=1.0)

    found = explosion(500.0)
    assert 0.1 < found.lrs[-1] < 0.11
    assert "far above all it had been" in found.stopped
    assert len(found.losses) == len(found.lrs) < 300
    assert len(explosion(9.0).lrs) == 300


@pytest.mark.parametrize("first", [0.0, 1e-9, 0.01, -0.01])
@pytest.mark.parametrize("iterations", [29, 300])
@pytest.mark.parametrize("smoothing", [None, 0.05, 1.0])
def test_a_first_loss_near_zero_does_not_end_the_test(
    first: float, iterations: int, smoothing: float | None
) -> None:
    losses = iter([first, 6 * first] + [1.0 - i / 300 for i in range(iterations)])
    found = lr_range_test(
        lambda batch: next(losses),
        [0],
        NOTHING,
        make_optimizer(),
        iterations=iterations,
        smoothing=smoothing,
    )
    assert len(found.lrs) == iterations


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_rounding_error_is_no_explosion(level: float) -> None:
    found = a_curve(lambda lr: level + (level * 1e-7 if lr > 1e-5 else 0.0), smoothing=1.0)
    assert len(found.lrs) == 300


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_stops_where_the_loss_is_no_number(loss: float) -> None:
    found = a_curve(lambda lr: loss if lr > 0.1 else 1.0)
    assert found.lrs[-1] <= 0.1
    assert f"the loss was {loss}" in found.stopped
    nothing = a_curve(lambda lr: loss)
    assert (nothing.lrs, nothing.base_lr) == ([], None)
    nothing.figure()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"start_lr": 0.0}, "start_lr: 0.0"),
        ({"start_lr": -1.0, "spacing": "linear"}, "start_lr: -1.0"),
        ({"start_lr": math.nan}, "start_lr: nan"),
        ({"start_lr": 1.0, "end_lr": 1.0}, "end_lr: 1.0"),
        ({"end_lr": math.inf}, "end_lr: inf"),
        ({"iterations": 1}, "iterations: 1"),
        ({"iterations": 10.5}, "iterations: 10.5"),
        ({"spacing": "log"}, "'log'"),
        ({"smoothing": 0.0}, "smoothing: 0.0"),
        ({"smoothing": 1.5}, "smoothing: 1.5"),
        ({"diverge_at": 1.0}, "diverge_at: 1.0"),
    ],
)
def test_a_bad_option_is_named_before_the_first_step(change: dict[str, Any], named: str) -> None:
    def step(batch: Any) -> float:
        raise AssertionError

    with pytest.raises(ValueError, match=named):
        lr_range_test(step, [0], NOTHING, make_optimizer(), **change)


@pytest.mark.parametrize("name", ["start_lr", "end_lr", "iterations", "smoothing", "diverge_at"])
@pytest.mark.parametrize("value", ["0.1", [0.1], {}], ids=repr)
def test_what_is_no_number_is_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"Invalid {name}: {value!r} (expected a number)")):
        lr_range_test(lambda batch: 1.0, [0], NOTHING, make_optimizer(), **{name: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"step": None}, "`step` must be a function that takes a batch and returns the loss, got None"),
        ({"batches": 3}, "`batches` must be a DataLoader, or else to iterate over, got 3"),
        ({"model": None}, "NoneType is not a Module"),
        ({"also": nn.Linear(1, 1)}, "`also` takes a list of objects, got Linear("),
    ],
)
def test_what_is_of_another_kind_is_named(change: dict[str, Any], named: str) -> None:
    given = {"step": lambda batch: 1.0, "batches": [0], "model": NOTHING, "optimizer": make_optimizer()}
    with pytest.raises(TypeError, match=re.escape(named)):
        lr_range_test(**{**given, **change})


def test_no_batches() -> None:
    optimizer = make_optimizer(lr=0.5)
    with pytest.raises(ValueError, match="ended after 0 batches"):
        lr_range_test(lambda batch: 1.0, [], NOTHING, optimizer, iterations=5)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("until", [290, 200, 1])
def test_the_end_of_an_iterator_keeps_the_curve(until: int) -> None:
    """A curve that ends in the middle of the fall would suggest too little."""
    optimizer = make_optimizer()
    found = lr_range_test(
        lambda batch: 2 / (1 + optimizer.param_groups[0]["lr"] / 0.01),
        iter(range(until)),
        NOTHING,
        optimizer,
    )
    assert len(found.losses) == until
    assert found.stopped == f"after {until} of 300 iterations, with the batches"
    assert (found.base_lr is None) == (until < 290)
    if until == 200:
        assert "still falling" in found.how


@pytest.mark.parametrize("result", [None, "low", torch.ones(2), (1.0, 0.5, 3.0), (1.0, "good")])
def test_a_step_that_returns_no_loss(result: Any) -> None:
    with pytest.raises(TypeError, match="must return the loss"):
        lr_range_test(lambda batch: result, [0], NOTHING, make_optimizer())


def test_other_things_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        lr_range_test(lambda batch: 1.0, [0], NOTHING, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state_dict and load_state_dict, got 3"):
        lr_range_test(lambda batch: 1.0, [0], NOTHING, make_optimizer(), also=[3])
    with pytest.raises(ValueError, match="run the model once"):
        lr_range_test(lambda batch: 1.0, [0], nn.LazyLinear(3), make_optimizer())


# ---------------------------------------------------------------- to look at


def test_figure_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    optimizer = make_optimizer()

    def step(batch: Any) -> tuple[float, float]:
        lr = optimizer.param_groups[0]["lr"]
        return 2 / (1 + lr / 0.01), 1 - 1 / (1 + lr / 0.01)

    found = lr_range_test(step, [0], NOTHING, optimizer)
    left, right = found.figure().axes
    assert left.get_xscale() == "log"
    curves = {line.get_label(): line.get_ydata() for line in left.lines}
    assert list(curves["loss"]) == found.losses
    assert list(curves["smoothed"]) == found.smoothed
    assert list(right.lines[0].get_ydata()) == found.accuracies
    (band,) = left.patches
    assert band.get_x() == found.base_lr
    assert band.get_x() + band.get_width() == pytest.approx(found.max_lr)
    assert a_curve(lambda lr: 1.0, spacing="linear").figure().axes[0].get_xscale() == "linear"

    with SummaryWriter(str(tmp_path)) as writer:
        found.write(writer, "range")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    for tag, values in {
        "range/learning_rate": found.lrs,
        "range/loss": found.losses,
        "range/smoothed_loss": found.smoothed,
        "range/accuracy": found.accuracies,
    }.items():
        points = events.Scalars(tag)
        assert [point.step for point in points] == list(range(300))
        assert [point.value for point in points] == pytest.approx(values, rel=1e-6)
    assert events.Tags()["images"] == ["range"]


@pytest.mark.parametrize("end", ["nan", "no batch in time", "one point"])
def test_a_figure_without_a_curve_says_why(end: str) -> None:
    def interrupted(lr: float) -> float:
        raise KeyboardInterrupt

    if end == "nan":
        found = a_curve(lambda lr: math.nan)
    elif end == "one point":
        found = a_curve(lambda lr: 1.0 if lr < 1.01e-7 else math.inf)
    else:
        found = a_curve(interrupted)
    (axes,) = found.figure().axes
    words = " ".join(text.get_text() for text in axes.texts)
    if end == "one point":
        assert axes.lines[0].get_marker() == "."
        assert "1 losses are too few" in found.how
    else:
        assert found.stopped in words


def test_the_legend_covers_nothing() -> None:
    found = a_curve(lambda lr: 2 / (1 + lr / 0.01) if lr < 3 else 1000.0)
    figure = found.figure()
    figure.draw_without_rendering()  # type: ignore[no-untyped-call]
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1
    assert [text.get_text() for text in legend.get_texts()][:2] == ["loss", "smoothed"]


def test_numbers_of_numpy_and_torch_become_pythons() -> None:
    found = lr_range_test(
        lambda batch: np.float32(1.0),
        [0],
        NOTHING,
        make_optimizer(),
        start_lr=np.float64(1e-3),
        end_lr=torch.tensor(1.0),  # type: ignore[arg-type]
        iterations=np.int64(20),  # type: ignore[arg-type]
        smoothing=np.float32(0.5),  # type: ignore[arg-type]
        diverge_at=np.float64(3.0),
    )
    numbers = [*found.lrs, *found.losses, *found.smoothed]
    assert len(numbers) == 60
    assert {type(number) for number in numbers} == {float}
