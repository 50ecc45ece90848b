"""Every mistake in a class of yours and its coefficients is named: what was found, what was expected."""

# ruff: noqa: E501  the tables have a mistake in each line

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torchopt_course as oc

from .mine import ONE_NUMBER, Mine, parameter, with_changes, without


def method(self: Any, p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p, m


class Super(Mine):
    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return super().rule(p, 2 * g, m, lr)  # type: ignore[misc]


CLASSES: dict[str, tuple[Callable[[], Any], str]] = {
    "no rule": (lambda: without("rule"), "Mine has no rule: expected a @staticmethod rule(p, g, *states"),
    "no coefficients": (lambda: without("coefficients"), "Mine has no coefficients: expected a @staticmethod"),
    "a method": (lambda: with_changes(rule=method), "got (self, p, g, m, lr): is @staticmethod missing?"),
    "no static method": (
        lambda: type("Mine", (Mine,), {"rule": lambda p, g, m, lr: (p, m)}),
        "Mine.rule is a method, expected a @staticmethod: write that above it",
    ),
    "nor coefficients": (
        lambda: type("Mine", (Mine,), {"coefficients": lambda lr: {"lr": lr}}),
        "Mine.coefficients is a method, expected a @staticmethod: write that above it",
    ),
    "super": (lambda: Super, "Super.rule calls super() without arguments, which is for methods: call the rule of"),
    "a class method": (lambda: with_changes(rule=classmethod(method)), "Mine.rule is a classmethod, expected a @s"),
    "no function": (
        lambda: with_changes(rule=functools.partial(Mine.rule)),
        "Mine.rule is a partial, expected a plain function",
    ),
    "another order": (
        lambda: with_changes(rule=lambda p, m, g, lr: (p, m)),
        "Mine.rule must start with the parameters (p, g, m), the states in the order in which",
    ),
    "stars": (lambda: with_changes(rule=lambda p, g, m, **k: (p, m)), "Mine.rule takes **k, expected each coeff"),
    "one star": (lambda: with_changes(rule=lambda p, g, m, *k: (p, m)), "Mine.rule takes *k, expected each coeff"),
    "a default": (lambda: with_changes(rule=lambda p, g, m, lr=1: (p, m)), "Mine.rule has a default for 'lr'"),
    "by position": (lambda: with_changes(rule=lambda p, g, m, lr, /: (p, m)), "Mine.rule takes 'm' by position"),
    "a dictionary": (lambda: with_changes(coefficients={"lr": 1}), "Mine.coefficients is a dict, {'lr': 1}, expe"),
    "coefficients(self)": (
        lambda: with_changes(coefficients=lambda self, lr: {"lr": lr}),
        "Mine.coefficients starts with 'self', expected options: is @staticmethod missing?",
    ),
    "coefficients(**k)": (lambda: with_changes(coefficients=lambda **k: k), "Mine.coefficients takes **k, expec"),
    "coefficients(lr, x=1)": (
        lambda: with_changes(coefficients=lambda lr, x=1: {"lr": lr}),
        "Mine.coefficients has a default for 'x', expected none",
    ),
    "an unknown option": (
        lambda: with_changes(coefficients=lambda lr, weight_dacay: {"lr": lr}),
        "Mine.coefficients asks for 'weight_dacay', expected step, first or an option: differentiable, foreach,",
    ),
    "states: a string": (lambda: with_changes(states="m"), "Mine.states is a str, 'm', expected a tuple of names"),
    "a state twice": (lambda: with_changes(states=("m", "m")), "Mine has the state 'm' twice, expected each once"),
    "and optional": (lambda: with_changes(optional_states={"m": "lr"}), "Mine has the state 'm' twice"),
    "a state no name": (lambda: with_changes(states=("m", 1)), "Mine has a int, 1 among its states, expected a n"),
    "a state of two words": (lambda: with_changes(states=("a b",)), "Mine has a str, 'a b' among its states"),
    "a state called step": (lambda: with_changes(states=("step",)), "calls a state 'step', which is the number"),
    "a state called g": (lambda: with_changes(states=("g",)), "Mine calls a state 'g', which is the gradient"),
    "optional: a list": (lambda: with_changes(optional_states=["n"]), "Mine.optional_states is a list, ['n'], exp"),
    "optional: no option": (
        lambda: with_changes(optional_states={"n": "keep"}, rule=lambda p, g, m, n, lr: (p, m, n)),
        "Mine.optional_states asks for 'keep', expected step, first or an option",
    ),
    "a state called lr": (
        lambda: with_changes(states=("lr",), rule=lambda p, g, lr: (p, lr)),
        "Mine calls both a state and a coefficient 'lr'",
    ),
    "too few coefficients": (
        lambda: with_changes(coefficients=lambda: {}),  # noqa: PIE807
        "Mine.rule takes the coefficients ['lr'], but coefficients() returned []",
    ),
    "too many": (
        lambda: with_changes(coefficients=lambda lr: {"lr": lr, "x": lr}),
        "Mine.rule takes the coefficients ['lr'], but coefficients() returned ['lr', 'x']",
    ),
    "no dictionary": (lambda: with_changes(coefficients=lambda lr: [lr]), "Mine.coefficients returned a list, [0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CLASSES)
def test_a_class(mistake: str) -> None:
    """By the constructor, before anything has happened."""
    make, message = CLASSES[mistake]
    with pytest.raises(TypeError) as error:
        make()([parameter()])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "adam",
            "returned a str, 'adam' for 'lr', expected a number, a boolean, None or a tensor of one element",
        ),
        ([1], "returned a list, [1] for 'lr'"),
        (1j, "returned a complex, 1j for 'lr'"),
        (np.ones(2), "returned a ndarray, array([1., 1.]) for 'lr'"),
        (torch.ones(2), "returned a Tensor, tensor([1., 1.]) for 'lr', expected one real number"),
        (None, f"Mine.rule computes with None: {ONE_NUMBER}"),
    ],
    ids=str,
)
def test_a_coefficient(value: Any, message: str) -> None:
    """In the constructor, or in the step in which it comes up; then nothing has been changed."""
    with pytest.raises((TypeError, ValueError)) as error:
        with_changes(coefficients=lambda lr: {"lr": value})([parameter()])
    assert message in str(error.value)
    for fused in (None, False):
        param = parameter()
        late = with_changes(coefficients=lambda step, lr: {"lr": value if step == 2 else lr})
        optimizer = late([param], fused=fused)
        optimizer.step()
        before = param.detach().clone()
        with pytest.raises((TypeError, ValueError)) as error:
            optimizer.step()
        assert message in str(error.value)
        assert torch.equal(param, before)


def test_coefficients_with_names_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"coefficients\(\) returned \[1, 'lr'\]"):
        with_changes(coefficients=lambda lr: {"lr": lr, 1: 2})([parameter()])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda step, lr: {"lr": lr / (step - 2)}, ZeroDivisionError),
        (lambda step, lr: {"lr": math.log(2 - step)}, ValueError),
        (lambda step, lr: {"lr": (0, 1)[int(step)]}, IndexError),
    ],
)
def test_an_error_in_coefficients_tells_what_they_were_given(make: Any, error: type[Exception]) -> None:
    optimizer = with_changes(coefficients=make)([parameter()])
    optimizer.step()
    with pytest.raises(error, match=r"^Mine\.coefficients\(lr=0\.5, step=2\.0\), in `.*`: "):
        optimizer.step()


def test_an_edited_option_that_the_formula_cannot_take_is_named() -> None:
    param = parameter()
    optimizer = oc.Adam([param])
    optimizer.param_groups[0]["betas"] = (0.9, 1)
    with pytest.raises(ZeroDivisionError, match=r"Adam\.coefficients\(.*betas=\(0\.9, 1\)"):
        optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3))


def test_maximize_may_be_anything_that_is_true_or_false() -> None:
    assert oc.Adam([parameter()], maximize=[1]).step() is None  # type: ignore[arg-type, func-returns-value]


@pytest.mark.parametrize("nan", [math.nan, np.float64("nan"), torch.tensor(math.nan)], ids=repr)
def test_a_coefficient_that_is_no_number(nan: Any) -> None:
    """From the start it is a mistake; what becomes one, a rate for instance, counts as in torch."""
    with pytest.raises(ValueError, match=r"Mine\.coefficients returned nan for 'lr', expected a number"):
        with_changes(coefficients=lambda lr: {"lr": nan})([parameter()])
    param = parameter()
    optimizer = with_changes(coefficients=lambda step, lr: {"lr": nan if step == 2 else lr})([param])
    optimizer.step()
    optimizer.step()
    assert param.isnan().all()
