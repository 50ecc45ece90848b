"""What goes wrong in a primitive of one's own is named, at its definition where possible."""

from __future__ import annotations

import pytest
import torch

from torchopt_course import autograd
from torchopt_course.autograd import PRIMITIVES, Variable, primitive


@pytest.fixture(autouse=True)
def _forget():
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)


def cube(x):
    return x * x * x


def test_without_parentheses_or_without_a_rule():
    with pytest.raises(
        TypeError, match=r"called without parentheses, or without a rule: @primitive\(x=lambda"
    ):
        primitive(cube)
    with pytest.raises(TypeError, match=r"@primitive needs a rule: @primitive\(x=lambda g, x: \.\.\.\)"):
        primitive(torch.special.erfcx)
    with pytest.raises(TypeError, match="needs a rule"):
        primitive(jvp="linear")


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: (x, x), "a tuple of 2; a primitive has one result"),
        (lambda x: float(x.sum()), "a float"),
        (lambda x: None, "None"),
    ],
)
def test_a_function_that_returns_no_tensor(function, what: str):
    op = primitive(x=lambda g, x: g)(function)
    for call in (
        lambda: op(Variable([1.0, 2.0])),
        lambda: autograd.jvp(op, (torch.ones(2),), (torch.ones(2),)),
    ):
        with pytest.raises(TypeError, match=f"must return one tensor, not {what}"):
            call()


@pytest.mark.parametrize(("rule", "what"), [(lambda g, x: None, "None"), (lambda g, x: 2.0, "a float")])
def test_a_rule_that_returns_no_tensor(rule, what: str):
    """A rule without its return would be a gradient that is lost without a word."""
    op = primitive(x=rule)(cube)
    with pytest.raises(TypeError, match=f"the VJP of cube for 'x' must return a tensor, not {what}"):
        op(Variable(2.0)).backward()
    op = primitive(x=lambda g, x: 3 * g * x * x, jvp=lambda x_dot, x: rule(x_dot, x))(cube)
    with pytest.raises(TypeError, match=f"the JVP of cube must return a tensor, not {what}"):
        autograd.jvp(op, (torch.tensor(2.0),), (torch.tensor(1.0),))


def test_a_jvp_that_cannot_be():
    with pytest.raises(TypeError, match="the JVP of cube asks for 'xdot', which is none of ans, x, x_dot"):
        primitive(x=lambda g, x: 3 * g * x * x, jvp=lambda xdot, x: xdot)(cube)
    with pytest.raises(
        TypeError, match="must be a function or one of elementwise, linear, multilinear, not 'elementwize'"
    ):
        primitive(x=lambda g, x: 3 * g * x * x, jvp="elementwize")(cube)


def test_numerical_gradients_are_those_of_numbers():
    with pytest.raises(RuntimeError, match=r"must return a single number \(a 0-d tensor\), not shape \(2,\)"):
        autograd.numerical.grad(lambda x: x * 2)(torch.ones(2))
