"""Gradients come and go and change their layout between two steps: a plan takes those that are there."""

from __future__ import annotations

import copy
import operator
from typing import Any, ClassVar

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torchopt_course as oc

from ..helpers import (
    ENGINES,
    assert_same,
    engines_used,
    every_engine,
    ours,
    parameters,
    set_gradients,
    theirs,
)
from .pairs import pair


def test_gradients_come_and_go() -> None:
    mine, reference, optimizers = pair()
    for step in range(3, 12):
        set_gradients(step, mine, reference)
        for params in (mine, reference):
            for i, param in enumerate(params):
                if (step + i) % 3 == 0:
                    param.grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, reference, *optimizers)


MANY = ["vector", "matrix", "channels_last", "scalar", "transposed", "one", "empty", "matrix"]


@every_engine
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adagrad", "Adam"])
@settings(max_examples=10, deadline=None)
@given(patterns=st.lists(st.sets(st.integers(0, len(MANY) - 1)), min_size=1, max_size=12))
def test_any_parameters_have_gradients(name: str, engine: dict[str, bool], patterns: list[set[int]]) -> None:
    """A mixture of experts: others in each step. What is known of a parameter is not thrown away."""
    mine, reference = parameters(MANY, torch.float64), parameters(MANY, torch.float64)
    optimizers = ours(name)(mine, lr=0.1, **engine), theirs(name)(reference, lr=0.1)
    known: set[int] = set()
    for step, pattern in enumerate(patterns):
        set_gradients(step, mine, reference)
        for params in (mine, reference):
            for i in set(range(len(MANY))) - pattern:
                params[i].grad = None
        before = [group.buckets for group in optimizers[0]._stepper.groups]
        for optimizer in optimizers:
            optimizer.step()
        used = engines_used(optimizers[0])
        assert used["cpu"] + used["foreach"] + len(used["eager"]) == len(pattern)
        assert (
            step == 0
            or pattern - known
            or all(map(operator.is_, before[0], optimizers[0]._stepper.groups[0].buckets))
        ), "a new plan for nothing new"
        known |= pattern
    assert_same(mine, reference, *optimizers)


class Counting(oc.ElementwiseOptimizer):
    """What `first` was in each step, written down in a state: 1 for true, one more digit a step."""

    states = ("seen",)
    optional_states: ClassVar = {"extra": "keep"}

    def __init__(self, params: list[nn.Parameter], **options: Any) -> None:
        super().__init__(params, dict(keep=False, other=False, **options))

    @staticmethod
    def coefficients(first: bool, other: bool) -> dict[str, Any]:
        return {"first": first, "other": other}

    @staticmethod
    def rule(p: Any, g: Any, seen: Any, extra: Any, first: bool, other: bool) -> Any:
        if other:
            g = xp.erf(g)  # no engine but eager knows it
        if extra is not None:
            extra = extra + g
        return p, 10 * seen + (1 if first else 2), extra


@pytest.mark.filterwarnings("ignore:.*engine is off")
@pytest.mark.parametrize("change", ["nothing", "keep", "other", "data", "late", "copy", "loaded"])
@pytest.mark.parametrize(
    "engine", [{}, ENGINES["foreach"], ENGINES["eager"]], ids=["default", "foreach", "eager"]
)
def test_first_is_true_once(engine: dict[str, bool], change: str) -> None:
    """Whatever becomes of the plan later."""
    params = parameters(["vector", "matrix"], torch.float64)
    optimizer = Counting(params, **engine)
    for step in range(6):
        set_gradients(step, params)
        if change == "late" and step < 2:
            params[1].grad = None
        if step == 3:
            if change in ("keep", "other"):
                optimizer.param_groups[0][change] = True
            elif change == "data":
                params[0].data = params[0].detach().clone()
            elif change == "copy":
                params, optimizer = copy.deepcopy((params, optimizer))
                set_gradients(step, params)
            elif change == "loaded":
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.step()
    assert optimizer.state[params[0]]["seen"].unique().item() == 122222
    assert optimizer.state[params[1]]["seen"].unique().item() == (1222 if change == "late" else 122222)


def test_gradient_changes_layout() -> None:
    """An expanded or transposed gradient is copied, not misread."""
    mine, reference, optimizers = pair()
    for grad in (torch.ones(1, 3).expand(5, 3), torch.randn(3, 5).t(), torch.randn(5, 6)[:, ::2]):
        set_gradients(3, mine, reference)
        mine[1].grad = reference[1].grad = grad
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, reference, *optimizers)


class Subclass(Tensor):
    """What no engine takes but the one that takes all."""


@every_engine
def test_gradient_of_another_layout_beside_a_tensor_that_no_plan_knows(engine: dict[str, bool]) -> None:
    """Its copy lives until the step is done, whatever is looked at anew in between."""
    odd = [nn.Parameter(torch.ones(3).as_subclass(Subclass)) for _ in range(2)]
    plain = [nn.Parameter(torch.ones(64, 50).t()) for _ in range(2)]
    options = {"fused": None} if engine.get("fused") else engine  # no demand: the odd one goes elsewhere
    optimizer = oc.Adam([plain[0], odd[0]], lr=0.01, **options)
    other = torch.optim.Adam([plain[1], odd[1]], lr=0.01, foreach=False)
    for step in range(4):
        for kind, params in ((Tensor, plain), (Subclass, odd)):
            for param in params:
                grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(step))
                param.grad = grad.as_subclass(kind)
        optimizer.step()
        other.step()
        torch.testing.assert_close(plain[0], plain[1])
    torch.testing.assert_close(odd[0], odd[1])


def test_late_gradient_is_noticed() -> None:
    """The other parameters' plan still holds; the new one must not be forgotten."""
    mine, reference, optimizers = pair()
    extra = parameters(["vector"])[0], parameters(["vector"])[0]
    for param, optimizer in zip(extra, optimizers, strict=True):
        optimizer.param_groups[0]["params"].insert(0, param)
    for late in (True, False):
        set_gradients(3, [extra[0], *mine], [extra[1], *reference])
        if late:
            extra[0].grad = extra[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert_same([extra[0], *mine], [extra[1], *reference], *optimizers)


def test_gradient_is_a_lazy_negation() -> None:
    """Stored with the wrong sign and a flag, as the gradient of an imaginary part can be."""
    mine, reference, optimizers = pair()
    set_gradients(3, mine, reference)
    optimizers[0].param_groups[0]["fused"] = None
    mine[1].grad = reference[1].grad = torch._neg_view(torch.randn(5, 3))
    assert mine[1].grad.is_neg()
    for optimizer in optimizers:
        optimizer.step()
    assert_same(mine, reference, *optimizers)
