# ruff: noqa: RUF043
"""assert_gradients_agree finds wrong derivatives, says which and where, and lets right ones pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import PRIMITIVES
from torchopt_course.testing import GradientError, assert_gradients_agree


@pytest.fixture
def cube():
    """Defines x³ with the rules that are asked for."""

    def define(**rules):
        @autograd.primitive(**rules)
        def cube(x):
            return x * x * x

        return cube

    yield define
    PRIMITIVES.pop("cube", None)


X = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_right_gradients_pass(dtype: torch.dtype):
    assert_gradients_agree(
        lambda x, y: (torch.sin(x) @ y, {"z": x / (1 + y * y)}), X.to(dtype), X.t().to(dtype)
    )
    assert_gradients_agree(
        lambda x, labels: F.cross_entropy(x, labels), X.to(dtype), torch.tensor([0, 1]), order=3
    )


def test_modules_pass_and_stay_as_they_are():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(8, 2)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert_gradients_agree(model, torch.randn(3, 1, 4, 4), order=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_wrong_vjp_is_named_with_its_element(cube):
    wrong = cube(
        x=lambda g, x: g * torch.where(x > 1, 4.0, 3.0) * x**2, jvp=lambda x_dot, x: x_dot * 3 * x**2
    )
    with pytest.raises(GradientError) as error:
        assert_gradients_agree(lambda x: torch.sin(wrong(2 * x)).sum(), X / 2)
    said = str(error.value)
    assert "gradients of order 1: reverse disagrees with forward, torch, numerical" in said
    assert "at element (1, 0) of input 0 (2, 2)" in said
    assert "the VJP of cube is wrong (operation 2 of " in said


def test_a_wrong_jvp_is_named(cube):
    wrong = cube(x=lambda g, x: g * 3 * x**2, jvp=lambda x_dot, x: -x_dot * 3 * x**2)
    with pytest.raises(GradientError, match="(?s)forward disagrees.*the JVP of cube is wrong"):
        assert_gradients_agree(lambda x: wrong(x).exp(), X)


def test_a_wrong_second_derivative_is_found(cube):
    wrong = cube(x=lambda g, x: g * 3 * x * x.detach())  # right to first order
    assert_gradients_agree(wrong, X, order=1)
    with pytest.raises(GradientError, match="gradients of order 2"):
        assert_gradients_agree(wrong, X, order=2)


def test_functions_that_torch_cannot_see_through_are_told_by_differences():
    @autograd.primitive(x=lambda g, x: g * 2 * x)
    def cube(x):
        return torch.from_numpy(x.detach().numpy() ** 3)

    try:
        with pytest.raises(GradientError, match="the VJP of cube is wrong"):
            assert_gradients_agree(cube, X, order=1)
    finally:
        del PRIMITIVES["cube"]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="order must be at least 1, not 0"):
        assert_gradients_agree(torch.sin, X, order=0)
    with pytest.raises(ValueError, match="nothing to differentiate"):
        assert_gradients_agree(torch.abs, torch.arange(3))
    with pytest.raises(ValueError, match="no floating-point tensor"):
        assert_gradients_agree(torch.argmax, X)
