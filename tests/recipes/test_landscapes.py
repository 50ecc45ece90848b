"""The landscapes' minima, the walks' arithmetic and the known rates, each against an independent truth."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.landscapes import SIZES
from recipes.parts.ground import (
    LANDSCAPES,
    OPTIMIZERS,
    TARGET,
    TURNED,
    Walk,
    quality,
    steps_until,
    walk,
)
from recipes.parts.quadratic import best_settings, measured_factor, steps_per_digit
from torchopt_course.playground.landscapes import Landscape

from .conftest import SmokeRun, curves_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("landscapes").folder


def test_the_result_has_every_walk_and_the_turned_ravine_had_no_choice(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    rows = {(row["landscape"], row["optimizer"]): row for row in result["rows"]}
    assert set(rows) == set(itertools.product([*LANDSCAPES, TURNED.name], OPTIMIZERS))
    for name in OPTIMIZERS:
        straight, across = rows["Ravine", name], rows[TURNED.name, name]
        assert across["lr"] == straight["lr"]
        same = across["height_left"] == pytest.approx(straight["height_left"], rel=1e-6)
        assert same == (name in {"Gradient descent", "Momentum", "Nesterov"})  # these know no axes
    wins = sum(
        (rows[name, "Momentum"]["steps_to_target"] or math.inf)
        < (rows[name, "Gradient descent"]["steps_to_target"] or math.inf)
        for name in LANDSCAPES
    )
    assert f"gradient descent in {wins} of 6 landscapes" in result["evidence"]


def test_pictures_animation_and_curves_are_there_and_in_tensorboard(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["pictures"] == ["paths.gif", "paths.png", "turned.png", "quadratic.png"]
    with Image.open(folder / "paths.gif") as animation:
        assert animation.n_frames == SIZES["smoke"].frames
        assert animation.width == 900
        first = np.asarray(animation.convert("RGB"))
        animation.seek(animation.n_frames - 1)
        assert (first != np.asarray(animation.convert("RGB"))).any()
    assert (folder / "paths.gif").stat().st_size < 3e6
    events, curves = EventAccumulator(str(folder)).Reload(), curves_of(folder)
    tags = {f"landscapes/{name[:-4]}" for name in result["pictures"]}
    assert set(events.Tags()["images"]) == tags
    for row in result["rows"]:
        tag = f"{row['landscape']}/{row['optimizer']}".replace(", ", "_").replace(" ", "_")
        last = curves[tag][-1]
        assert last.step == SIZES["smoke"].steps
        assert last.value == pytest.approx(row["height_left"])


GROUNDS = [*LANDSCAPES.values(), TURNED]


@pytest.mark.parametrize("landscape", GROUNDS, ids=lambda one: one.name)
def test_at_each_minimum_the_slope_is_zero_and_the_height_the_lowest(landscape: Landscape) -> None:
    for place in landscape.minima:
        point = torch.tensor(place, dtype=torch.float64, requires_grad=True)
        height = landscape.height(point[0], point[1])
        (slope,) = torch.autograd.grad(height, point)
        assert height.item() == pytest.approx(landscape.lowest, abs=1e-9)
        assert slope.abs().max() < 1e-4  # Himmelblau's minima are known to six digits
        curvature = torch.autograd.functional.hessian(lambda p: landscape.height(p[0], p[1]), point.detach())
        assert torch.linalg.eigvalsh(curvature).min() > 0
    grid = torch.linspace(-6, 6, 241, dtype=torch.float64)
    assert landscape.height(*torch.meshgrid(grid, grid, indexing="xy")).min() >= landscape.lowest - 1e-9


@pytest.mark.parametrize("landscape", GROUNDS, ids=lambda one: one.name)
def test_the_picture_shows_the_start_and_the_minima(landscape: Landscape) -> None:
    left, right, bottom, top = landscape.view
    x, y = landscape.start
    assert all(left < x < right and bottom < y < top for x, y in landscape.minima)
    assert left < x < right
    assert bottom < y < top


def test_turning_moves_the_start_with_the_ground() -> None:
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    (x, y), (left, bottom) = LANDSCAPES["Ravine"].start, TURNED.start
    assert (left, bottom) == pytest.approx((cos * x - sin * y, sin * x + cos * y))
    along = torch.tensor([2 * cos, 2 * sin]).double()
    assert TURNED.height(*along).item() == pytest.approx(2**2 / 2)  # the flat floor, of curvature 1


def test_gradient_descent_on_the_ravine_is_a_geometric_sequence() -> None:
    lrs = [0.001, 0.04, 0.06]  # slow, zigzagging, diverging: curvatures 1 and 40
    steps = torch.arange(21).double().unsqueeze(1)
    for lr, way in zip(lrs, walk(LANDSCAPES["Ravine"], OPTIMIZERS["Gradient descent"], lrs, 20), strict=True):
        factors = torch.tensor([1 - lr * 1, 1 - lr * 40], dtype=torch.float64)
        expected = torch.tensor([-9.0, 1.5]).double() * factors**steps
        torch.testing.assert_close(way.path, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(way.heights, (expected**2 @ torch.tensor([0.5, 20.0]).double()))
        assert way.lr == lr


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_walks_at_several_rates_do_not_touch(name: str) -> None:
    together = walk(LANDSCAPES["Beale"], OPTIMIZERS[name], [0.0005, 0.001], 15)
    for lr, way in zip([0.0005, 0.001], together, strict=True):
        (alone,) = walk(LANDSCAPES["Beale"], OPTIMIZERS[name], [lr], 15)
        torch.testing.assert_close(way.path, alone.path, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("reached", "first"),
    [
        ([True, True], 0),
        ([False, False, True], 2),
        ([False, True, False, True, True], 3),  # flew past it once
        ([False, True, False], math.inf),
        ([False], math.inf),
    ],
)
def test_the_target_must_stay_reached(reached: list[bool], first: float) -> None:
    assert steps_until(torch.tensor(reached)) == first


def way(heights: list[float]) -> Walk:
    left = torch.tensor(heights, dtype=torch.float64)
    return Walk(0.1, torch.zeros(len(left), 2), left, steps_until(left <= TARGET * left[0]))


def test_the_best_walk_is_the_fastest_and_one_that_diverged_cannot_be() -> None:
    fast, slow = way([1, 1e-4, 1e-4, 1e-4]), way([1, 1, 1e-4, 1e-9])
    near, far, lost = way([1, 0.5]), way([1, 0.9]), way([1, math.nan])
    ranking = [fast, slow, near, far, lost]
    for order in itertools.permutations(ranking):
        assert sorted(order, key=quality) == ranking


@pytest.mark.parametrize("kappa", [3, 30, 300])
def test_theory_and_measurement_are_the_spectral_radius(kappa: float) -> None:
    for name, (lr, momentum, factor) in best_settings(kappa).items():
        companions = []
        for curvature in (1, kappa):
            shrink = 1 - lr * curvature
            if name == "Nesterov":
                companion = [[(1 + momentum) * shrink, -momentum * shrink], [1, 0]]
            else:
                companion = [[shrink + momentum, -momentum], [1, 0]]
            companions.append(max(abs(np.linalg.eigvals(np.array(companion)))))
        assert max(companions) == pytest.approx(factor, abs=1e-6)  # a double root is found to half the digits
        assert math.log(measured_factor(name, kappa)) == pytest.approx(math.log(factor), rel=0.02)


def test_momentum_needs_the_root_of_the_condition_number() -> None:
    steps = {k: {n: steps_per_digit(f) for n, (_, _, f) in best_settings(k).items()} for k in (1000, 100_000)}
    growth = {name: steps[100_000][name] / steps[1000][name] for name in steps[1000]}
    assert growth == pytest.approx({"Gradient descent": 100, "Momentum": 10, "Nesterov": 10}, rel=0.02)
    assert steps_per_digit(0.1) == pytest.approx(1)
