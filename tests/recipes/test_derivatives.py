"""The lecture's program four ways: errors, counted costs, the graph."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes import derivatives
from recipes.derivatives import costs, four_ways, judge, program
from recipes.parts.counted_work import MANY_INPUTS, MANY_RESULTS, Costs, work
from recipes.parts.difference_errors import Errors, errors_against_h

from .conftest import SmokeRun, curves_of

COUNTS = derivatives.SIZES["smoke"].counts


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("derivatives").folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


@pytest.fixture(scope="module")
def errors() -> Errors:
    return errors_against_h(program, 60)


@pytest.fixture(scope="module")
def measured() -> Costs:
    return costs(COUNTS)


def test_the_result_is_complete(result: dict[str, Any]) -> None:
    assert {"ways", "slopes"} <= set(result)
    assert len(result["rows"]) == 5 * len(COUNTS)
    assert result["formula"] == ["z = x*y + sin(x)", "dz/dx = y + cos(x)", "dz/dy = x"]


def test_pictures_curves_and_graph_are_there(folder: Path, result: dict[str, Any]) -> None:
    assert result["pictures"] == ["graph.svg", "error_against_h.png", "cost.png"]
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    curves = curves_of(folder)
    assert {f"evaluations/n_inputs_1_result/{way}_mode" for way in ("reverse", "forward")} <= set(curves)
    assert tags["graph"]
    reverse = curves["evaluations/n_inputs_1_result/reverse_mode"]
    assert [event.step for event in reverse] == list(COUNTS)

    assert "<svg" in (folder / "graph.svg").read_text()
    assert '"x" -> "b"' in (folder / "graph.dot").read_text()
    lines = dict(line.split(maxsplit=1) for line in (folder / "graph.txt").read_text().splitlines())
    assert set(lines) == set("xyabz")  # x once, though it is used twice
    assert f"grad {3 + math.cos(2):.4g}" in lines["x"]


def test_all_ways_give_the_derivatives_of_the_lecture() -> None:
    exact = (3 + math.cos(2), 2.0)
    for way, (dx, dy) in four_ways().items():
        tolerance = 1e-9 if way == "finite differences" else 1e-14
        assert (float(dx), float(dy)) == pytest.approx(exact, abs=tolerance), way


def test_the_costs_are_those_counted_on_paper(measured: Costs) -> None:
    """A pair (x, y) costs a product, a sine, a sum, and its place in the total: 4 numbers.

    Backwards come cos x, three products, and the sum of both ways to x: 5 more. Forwards, for each input, the
    tangents of the product (3), the sine (2), the sum (1) and the total (1): 7 more.
    """
    for n in COUNTS:
        assert measured[MANY_INPUTS, "reverse mode"][n] == (4 + 5) / 4
        assert measured[MANY_INPUTS, "forward mode"][n] == n * (4 + 7) / 4
        # Two evaluations for each input, and little else.
        assert 2 * n <= measured[MANY_INPUTS, "finite differences"][n] <= 2 * n + 2
        # 2n + 1 numbers each: the tangent of the product, of the sine (2), of the sum.
        assert measured[MANY_RESULTS, "forward mode"][n] == pytest.approx((4 * n + 3) / (2 * n + 1))
        assert measured[MANY_RESULTS, "reverse mode"][n] > n


def test_work_counts_numbers_and_no_bookkeeping() -> None:
    a = torch.ones(10, 10)
    assert work(lambda: a + a) == 100
    assert work(lambda: a.sum()) == 100
    assert work(lambda: torch.sin(a[0] * 2)) == 20
    assert work(lambda: a.clone().view(-1)[3:].t().detach()) == 0


def test_the_errors_are_those_of_taylor_and_of_rounding(errors: Errors) -> None:
    x = torch.linspace(0.5, 2.5, 60, dtype=torch.float64)
    at = errors.h.tolist().index(10**-2)
    # One term further than the recipe's theory: (sin(x + h) - sin x) / h - cos x in closed form.
    forward = (2 * torch.cos(x + 0.005) * math.sin(0.005) / 0.01 - torch.cos(x)).square().mean().sqrt()
    central = abs(math.sin(0.01) / 0.01 - 1) * torch.cos(x).square().mean().sqrt()
    assert float(errors.measured["forward"][at]) == pytest.approx(float(forward), rel=1e-6)
    assert float(errors.measured["central"][at]) == pytest.approx(float(central), rel=1e-6)
    assert float(errors.truncation["forward"][at]) == pytest.approx(float(forward), rel=0.01)
    assert float(errors.truncation["central"][at]) == pytest.approx(float(central), rel=0.01)
    for h, forward_, central_, predicted in zip(
        errors.h, errors.measured["forward"], errors.measured["central"], errors.round_off, strict=True
    ):
        if h < 1e-9:
            assert 0.1 * predicted < central_ < predicted
            assert 0.1 * predicted < forward_ < 2 * predicted


@pytest.mark.parametrize("broken", ["agreement", "reverse", "forward", "slope"])
def test_each_point_of_the_criterion_can_fail(measured: Costs, errors: Errors, broken: str) -> None:
    ways = {"symbolic": 0.0, "forward mode": 0.0, "reverse mode": 1e-16, "finite differences": 1e-11}
    assert judge(ways, errors, measured).borne_out

    def with_power(way: str, power: float) -> Costs:
        return {**measured, (MANY_INPUTS, way): {n: n**power for n in COUNTS}}

    if broken == "agreement":
        ways["reverse mode"] = 1e-6
    elif broken == "reverse":
        measured = with_power("reverse mode", 0.2)
    elif broken == "forward":
        measured = with_power("forward mode", 0.5)
    else:
        errors = replace(errors, slopes={**errors.slopes, "central truncation": 1.0})
    assert not judge(ways, errors, measured).borne_out
