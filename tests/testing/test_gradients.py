# ruff: noqa: RUF043, E501
"""assert_gradients_agree finds wrong derivatives, says which and where, and lets right ones pass."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import PRIMITIVES
from torchopt_course.testing import GradientError, NotDifferentiable, assert_gradients_agree


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


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="order must be at least 1, not 0"):
        assert_gradients_agree(torch.sin, X, order=0)
    with pytest.raises(ValueError, match="nothing to differentiate"):
        assert_gradients_agree(torch.abs, torch.arange(3))
    with pytest.raises(ValueError, match="no floating-point tensor"):
        assert_gradients_agree(torch.argmax, X)


# -- what torch cannot see into, what few elements show, what has a scale of its own -------------------------


@pytest.fixture
def own():
    """Defines a primitive that is forgotten after the test."""
    before = dict(PRIMITIVES)

    def define(function, **rules):
        return autograd.primitive(**rules)(function)

    yield define
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def by_numpy(x):
    return torch.from_numpy(np.sinh(x.detach().numpy()))


def test_a_right_primitive_that_torch_cannot_see_into_passes(own):
    sinh = own(by_numpy, x=lambda g, x: g * torch.cosh(x))
    assert_gradients_agree(sinh, X)
    assert_gradients_agree(lambda x: x * sinh(x * x) + torch.exp(x), X)  # torch sees a part of it


@pytest.mark.parametrize("factor", [1 + 1e-6, 1 + 1e-3, 2, -1])
def test_a_wrong_one_is_told_by_differences(own, factor: float):
    sinh = own(by_numpy, x=lambda g, x: g * factor * torch.cosh(x))
    with pytest.raises(
        GradientError, match="(?s)reverse, forward disagree with numerical.*the VJP of by_numpy"
    ):
        assert_gradients_agree(lambda x: x * sinh(x), X, order=1)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_one_wrong_element_of_ten_thousand_is_found(own, seen: bool, both: bool):
    at = torch.zeros(100, 100, dtype=torch.float64)
    at[71, 3] = 1e-3

    def square(x):
        return x * x if seen else torch.from_numpy(x.detach().numpy() ** 2)

    rules = {} if both else {"jvp": lambda x_dot, x: 2 * x * x_dot}
    if both:
        rules["jvp"] = lambda x_dot, x: (2 + at) * x * x_dot
    wrong = own(square, x=lambda g, x: (2 + at) * x * g, **rules)
    with pytest.raises(GradientError, match=r"at element \(71, 3\) of input 0 \(100, 100\)"):
        assert_gradients_agree(
            wrong, torch.linspace(0.5, 2, 10_000, dtype=torch.float64).reshape(100, 100), order=1
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_input_has_a_scale_of_its_own(own, dtype: torch.dtype):
    def scaled(a, b):
        return a * 1e5 + b

    wrong = own(scaled, a=lambda g: g * 1e5, b=lambda g: g * 1.01)
    with pytest.raises(
        GradientError, match=r"of input 1 \(3,\)(.|\n)*the VJP of scaled is wrong .*argument 'b'"
    ):
        assert_gradients_agree(wrong, torch.ones(3, dtype=dtype), torch.ones(3, dtype=dtype))


def test_a_rule_that_overflows_in_float32_is_found(own):
    def logistic(x):
        return torch.from_numpy(1 / (1 + np.exp(-x.detach().numpy().astype(np.float64)))).to(x.dtype)

    naive = own(logistic, x=lambda g, x: g * torch.exp(-x) / (1 + torch.exp(-x)) ** 2)
    assert_gradients_agree(naive, torch.tensor([-3.0, 0.5]))
    with pytest.raises(
        GradientError, match="nan at element .0,. of input 0 .2,. in float32, but \\d.*e-44 in float64"
    ):
        assert_gradients_agree(naive, torch.tensor([-100.0, 0.5]))


def test_a_wrong_derivative_of_the_jvp_is_found(own):
    def cube(x):
        return x * x * x

    wrong = own(cube, x=lambda g, x: g * 3 * x * x, jvp=lambda x_dot, x: x_dot * 3 * x * x.detach())
    assert_gradients_agree(wrong, X, order=1)
    with pytest.raises(
        GradientError, match="reverse over forward disagrees with reverse, forward, torch, numerical"
    ):
        assert_gradients_agree(wrong, X)


# -- where there is no derivative ----------------------------------------------------------------------------


def test_kinks_and_infinities_are_named_and_nobody_is_blamed(own):
    zero = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.warns(NotDifferentiable, match=r"element \(0,\) of input 0: .* kink .* jumps from 0 to 1"):
        assert_gradients_agree(torch.relu, zero)
    with pytest.warns(NotDifferentiable, match=r"element \(1,\) of input 0: .* kink .* jumps from 1 to 0"):
        assert_gradients_agree(lambda x: -torch.relu(1 - x).sum() + x.sum() * 0, zero, order=1)
    with pytest.warns(NotDifferentiable) as said:
        assert_gradients_agree(torch.sqrt, zero)
    (text,) = [str(warning.message).splitlines()[1:] for warning in said]
    assert text == ["  element (0,) of input 0: the derivative is not finite here"]
    with pytest.warns(NotDifferentiable, match=r"element \(0,\) of input 0: .* jumps here"):
        assert_gradients_agree(torch.floor, zero + torch.tensor([0.0, 0.5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and nothing is said elsewhere
        assert_gradients_agree(torch.relu, zero + 0.1)

    def ramp(x):
        return torch.from_numpy(np.maximum(x.detach().numpy(), 0))

    wrong = own(ramp, x=lambda g, x: g * (x > 0) + 5 * g * (x == 0))  # 5 is no slope of it
    with pytest.raises(GradientError, match="the VJP of ramp is wrong"):
        assert_gradients_agree(wrong, zero)


def test_ways_that_differ_at_a_kink_are_an_error_without_a_culprit(own):
    """By torch the derivative of |x| at 0 is 0. Another subgradient is no mistake of the rule."""

    def size(x):
        return torch.abs(x)

    one_sided = own(size, x=lambda g, x: g * torch.where(x < 0, -1.0, 1.0))
    with pytest.raises(
        GradientError, match="(?s)no operation is to blame: the function has a kink here.* jumps from -"
    ):
        assert_gradients_agree(one_sided, torch.tensor([0.0, 1.0], dtype=torch.float64), order=1)

    def ramp(x):
        return torch.relu(x)

    half = own(ramp, x=lambda g, x: g * ((x > 0) + 0.5 * (x == 0)))  # what central differences give, too
    with pytest.raises(
        GradientError, match="(?s)torch .*no operation is to blame: the function has a kink here"
    ):
        assert_gradients_agree(half, torch.tensor([0.0, 1.0], dtype=torch.float64), order=1)


def test_functions_that_are_hard_to_difference_pass():
    x = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    for f in (
        lambda x: 1e8 + x,
        lambda x: torch.exp(40 * x),
        lambda x: torch.sin(1e3 * x),
        lambda x: 1e-9 * x**3,
    ):
        assert_gradients_agree(f, x)
    for f in (torch.log, torch.sqrt, torch.reciprocal):
        assert_gradients_agree(f, x.abs() * 1e-7)
        assert_gradients_agree(f, x.abs() * 1e7)
    # A gradient that is zero but for rounding: softmax sums to 1, a bias before a normalization has no effect.
    assert_gradients_agree(lambda x: F.softmax(x, 0).sum(), x)
    assert_gradients_agree(lambda x, b: F.layer_norm(x + b, (3,)), x, x[:1], order=1)


def test_torch_s_own_rounding_is_not_taken_for_a_mistake():
    """torch differentiates hardsigmoid with 1/6 in float32."""
    with pytest.warns(NotDifferentiable, match="torch.autograd is .* off here"):
        assert_gradients_agree(F.hardsigmoid, X, order=1)


def test_there_may_be_no_elements():
    assert_gradients_agree(torch.sin, torch.zeros(0, 3, dtype=torch.float64))
    none, two = torch.zeros(0, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    assert_gradients_agree(lambda x, y: x.sum() + y * y, none, two)


def test_arguments_may_be_changed_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.ReLU(inplace=True))
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    assert_gradients_agree(model, x)
    assert torch.equal(x, before)


def test_complex_numbers_are_refused_and_not_passed_over():
    with pytest.raises(TypeError, match="complex inputs have no derivatives here; take torch.view_as_real"):
        assert_gradients_agree(lambda x, y: x * y.real, X, X + 0j)
    with pytest.raises(TypeError, match="complex results have no derivatives here"):
        assert_gradients_agree(lambda x: (x, torch.ones(2, dtype=torch.complex64)), X)


@pytest.mark.parametrize("seen", [True, False])
def test_nan_where_there_is_a_derivative_is_a_mistake(own, seen: bool):
    """x |x| has one at 0, but this rule divides 0 by 0 there."""

    def signed_square(x):
        return x * torch.abs(x) if seen else torch.from_numpy(x.detach().numpy() * np.abs(x.detach().numpy()))

    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    right = own(signed_square, x=lambda g, x: 2 * g * torch.abs(x))
    assert_gradients_agree(right, x, order=1)
    for rules in (
        {"x": lambda g, x: 2 * g * x * x / torch.abs(x)},
        {"x": lambda g, x: 2 * g * x * x / torch.abs(x), "jvp": lambda x_dot, x: 2 * x_dot * torch.abs(x)},
        {"x": lambda g, x: 2 * g * torch.abs(x), "jvp": lambda x_dot, x: 2 * x_dot * x * x / torch.abs(x)},
    ):
        with pytest.raises(
            GradientError, match=r"(?s)at element \(0,\) of input 0.*of signed_square is wrong"
        ):
            assert_gradients_agree(own(signed_square, **rules), x, order=1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_check_does_not_depend_on_the_caller_s_mode(cube, mode):
    with mode():
        assert_gradients_agree(torch.sin, X)
        with pytest.raises(GradientError, match="the VJP of cube is wrong"):
            assert_gradients_agree(cube(x=lambda g, x: g * 2 * x**2), X)
