"""What the LR range test suggests."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import torchopt_course as oc
from torchopt_course import CyclicLR, lr_range_test
from torchopt_course.lr_scheduler.range_bounds import lag_at, suggest_bounds
from torchopt_course.lr_scheduler.range_test import lr_at

from .ranges import NOTHING, a_curve
from .twins import make_optimizer


@pytest.mark.parametrize("offset", [0.0, -10.0])
@pytest.mark.parametrize(
    ("smoothing", "iterations", "within"),
    [
        *[(1.0, 1000, 1.001), (1.0, 29, 1.15), (0.05, 300, 1.55), (0.05, 1000, 1.1), (0.3, 100, 1.2)],
        *[(None, 29, 1.9), (None, 50, 1.8), (None, 100, 1.6), (None, 300, 1.55), (None, 1000, 1.55)],
    ],
)
def test_bounds_of_a_known_curve(
    offset: float, smoothing: float | None, iterations: int, within: float
) -> None:
    """2 / (1 + lr / 0.01) falls until it explodes at 3: where a tenth and nine tenths are done is known."""

    def loss_at(lr: float) -> float:
        return offset + (2 / (1 + lr / 0.01) if lr < 3 else 1000.0)

    def lr_of(share: float) -> float:
        return 0.01 * (1 / (1 - share * (1 - 1 / 301)) - 1)

    found = a_curve(loss_at, smoothing=smoothing, iterations=iterations)
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert 1 / within < found.base_lr / lr_of(0.1) < within
    assert 1 / within < found.max_lr / lr_of(0.9) < within
    for number in (f"{found.base_lr:.3g}", f"{found.max_lr:.3g}", "tenth"):
        assert number in str(found)


@given(st.floats(0.01, 1.0), st.integers(0, 400))
def test_the_lag_is_the_mean_age_of_what_is_averaged(smoothing: float, i: int) -> None:
    weights = (1 - smoothing) ** np.arange(i + 1)
    assert lag_at(i, smoothing) == pytest.approx(np.average(np.arange(i + 1), weights=weights), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("iterations", [29, 150])
def test_noise_is_no_fall(seed: int, iterations: int) -> None:
    noise = random.Random(seed)
    found = a_curve(lambda lr: noise.gauss(2.0, 0.5), iterations=iterations)
    assert found.base_lr is found.max_lr is None
    assert "no suggestion" in found.how


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iterations": 10}, "grew 7.7-fold with each iteration, too fast to be read; take at least 18"),
        ({"iterations": 29, "smoothing": 0.05}, "lags behind by 19 iterations, too many of 29; leave it out"),
        ({"iterations": 151, "smoothing": 0.05}, "or take at least 152"),
        ({"end_lr": 1e-3}, "at learning rate 0.001, the loss was still falling"),
        ({"end_lr": 1e-3, "spacing": "linear"}, "at learning rate 0.001, the loss was still falling"),
        ({"iterations": 2, "end_lr": 2e-7}, "2 losses are too few"),
    ],
)
def test_no_bounds_where_there_is_too_little_to_read(options: dict[str, Any], said: str) -> None:
    found = a_curve(lambda lr: 2 / (1 + lr / 0.01) if lr < 3 else 1000.0, **options)
    assert found.base_lr is found.max_lr is None
    assert said in found.how
    assert "no step of the optimizer was seen" in found.how


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0, 1e5])
@pytest.mark.parametrize("smoothing", [None, 0.05, 1.0])
def test_a_loss_that_stands_still_has_no_bounds(level: float, smoothing: float | None) -> None:
    found = a_curve(lambda lr: level, smoothing=smoothing)
    assert found.base_lr is None
    assert "noise" in found.how or "did not fall" in found.how


def test_a_loss_that_only_rises_is_not_said_to_have_fallen() -> None:
    found = a_curve(lambda lr: 1 + lr, end_lr=1.0)
    assert found.base_lr is None
    assert found.how.startswith("no suggestion: the loss did not fall")


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=60),
    st.floats(0.02, 1.0),
    st.floats(0.0, 3.0),
    st.booleans(),
)
def test_bounds_of_any_curve_are_in_order(
    losses: list[float], smoothing: float, delay: float, exploded: bool
) -> None:
    weights = [[(1 - smoothing) ** (i - k) for k in range(i + 1)] for i in range(len(losses))]
    smoothed = [float(np.average(losses[: len(w)], weights=w)) for w in weights]
    rate_at = partial(lr_at, iterations=60, start_lr=1e-7, end_lr=10.0, spacing="exponential")
    base_lr, max_lr, how = suggest_bounds(losses, smoothed, smoothing, 60, rate_at, delay, exploded)
    if base_lr is None or max_lr is None:
        assert how.startswith("no suggestion: ")
    else:
        assert 1e-7 <= base_lr < max_lr <= 10


@pytest.mark.parametrize(("momentum", "delay"), [(0.0, 1.0), (0.9, 2.5)])
@pytest.mark.parametrize("iterations", [29, 300])
def test_a_loss_shows_what_the_rates_before_it_did(momentum: float, delay: float, iterations: int) -> None:
    """The loss of iteration i is a function of the rate of i - delay: the bounds are those of it."""
    optimizer = make_optimizer(momentum=momentum)
    growth = 1e8 ** (1 / (iterations - 1))

    def loss_at(lr: float) -> float:
        return 2 / (1 + lr / 0.001) if lr < 0.3 else 1000.0

    def step(batch: int) -> float:
        optimizer.step()
        return loss_at(optimizer.param_groups[0]["lr"] / growth**delay)

    found = lr_range_test(step, [0], NOTHING, optimizer, iterations=iterations, smoothing=1.0)
    at_once = a_curve(loss_at, iterations=iterations, smoothing=1.0)
    assert (found.base_lr, found.max_lr) == pytest.approx((at_once.base_lr, at_once.max_lr), rel=0.1)


DIGITS_KINDS: dict[str, Any] = {
    "SGD": lambda params: oc.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: oc.Adam(params),
}


@pytest.fixture(scope="module")
def digits() -> tuple[TensorDataset, torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    inputs, targets = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    inputs = (inputs / 16).float()
    return TensorDataset(inputs[:1297], targets[:1297]), inputs[1297:], targets[1297:]


@pytest.mark.parametrize("iterations", [29, 42, 63, 100, 300])
@pytest.mark.parametrize("kind", [*DIGITS_KINDS])
def test_training_between_the_bounds(kind: str, iterations: int, digits: Any) -> None:
    """The best bounds of a grid, half a decade wide, reach 93 % of the test digits in these eight epochs."""
    data, test_inputs, test_targets = digits
    torch.manual_seed(iterations)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = DIGITS_KINDS[kind](model.parameters())
    loader = DataLoader(data, 64, shuffle=True)

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    found = lr_range_test(step, loader, model, optimizer, iterations=iterations)
    assert found.base_lr is not None
    assert found.max_lr is not None
    scheduler = CyclicLR(optimizer, found.base_lr, found.max_lr, step_size_up=2 * len(loader))
    for _ in range(8):
        for batch in loader:
            step(batch)
            scheduler.step()
    accuracy = (model(test_inputs).argmax(1) == test_targets).float().mean()
    assert accuracy > 0.9 * 0.93


@pytest.mark.parametrize("seed", range(6))
def test_the_noise_of_the_batches_does_not_make_the_lower_bound(seed: int) -> None:
    """The fall begins at 1e-3, with losses that scatter by a third of it."""
    noise = random.Random(seed)
    found = a_curve(lambda lr: 1 / (1 + lr / 0.01) + noise.gauss(0.0, 0.3) if lr < 3 else 1000.0)
    assert found.base_lr is not None
    assert 1e-4 < found.base_lr < 1e-2


def test_finds_bounds_that_train_a_real_model() -> None:
    """A regression whose curvature is known: gradient descent diverges above 2 / largest eigenvalue."""
    torch.manual_seed(1)
    inputs = torch.randn(256, 8, dtype=torch.float64)
    targets = inputs @ torch.randn(8, 1, dtype=torch.float64)
    limit = 2 / torch.linalg.eigvalsh(2 * inputs.T @ inputs / 256).max().item()
    model = nn.Linear(8, 1, bias=False).double()
    optimizer = oc.SGD(model.parameters())

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    found = lr_range_test(step, [None], model, optimizer)
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert found.base_lr < found.max_lr < limit < found.lrs[-1]
    before = step(None)
    scheduler = CyclicLR(optimizer, found.base_lr, found.max_lr, 10)
    for _ in range(40):
        loss = step(None)
        scheduler.step()
    assert loss < 0.05 * before
