"""A primitive of the user's in one decorated definition."""

from __future__ import annotations

import pytest
import torch

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable


def test_a_primitive_in_one_decorated_definition():
    @ag.primitive(x=lambda g, x: g * 3 * x**2)
    def cube(x):
        return x * x * x

    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    try:
        assert type(cube(x)) is torch.Tensor
        third = ag.jacfwd(ag.jacrev(ag.grad(lambda x: cube(x).sum())))(x)
        assert third.flatten().nonzero().flatten().tolist() == [0, 7]
        assert third[0, 0, 0].item() == 6.0
    finally:
        del ag.PRIMITIVES["cube"]


def test_a_primitive_may_stand_for_a_function_of_torch():
    from torchopt_course.autograd.dispatch import TABLE

    @ag.primitive(torch.special.erfcx, x=lambda g, x, ans: g * (2 * x * ans - 2 / torch.pi**0.5))
    def erfcx(x):
        return torch.special.erfcx(x)

    try:
        x = torch.tensor([0.5, -1.0], dtype=torch.float64)
        theirs = torch.func.grad(lambda x: torch.special.erfcx(x).sum())(x)
        torch.testing.assert_close(ag.grad(lambda x: torch.special.erfcx(x).sum())(x), theirs)
    finally:
        del ag.PRIMITIVES["erfcx"], TABLE[torch.special.erfcx]


def test_rules_that_cannot_work_are_refused():
    with pytest.raises(TypeError, match="asks for 'y'"):
        ag.primitive(x=lambda g, y: g)(lambda x: x)
    with pytest.raises(TypeError, match="no argument 'z'"):
        ag.primitive(z=lambda g: g)(lambda x: x)

    @ag.primitive(x=lambda g: g[:1])
    def crooked(x):
        return x * 1

    try:
        with pytest.raises(
            RuntimeError, match=r"VJP of crooked gave a gradient of shape \(1,\) .* shape \(2,\)"
        ):
            crooked(Variable([1.0, 2.0])).sum().backward()
    finally:
        del ag.PRIMITIVES["crooked"]

    @ag.primitive(x=lambda g: g.to("meta"))
    def elsewhere(x):
        return x * 1

    try:
        with pytest.raises(RuntimeError, match="gradient on meta for a leaf on cpu"):
            elsewhere(x := Variable([1.0, 2.0])).sum().backward()
        assert x.grad is None
    finally:
        del ag.PRIMITIVES["elsewhere"]
