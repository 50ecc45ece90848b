"""Between two steps anything may change. A plan that did not notice would write to the wrong memory.

Each test changes one thing in mid-run and goes on next to torch, which keeps no plan.
"""

from __future__ import annotations

import copy
import operator
import pickle
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torchopt_course as oc
from torchopt_course.engines.native import frame

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

KINDS = ["vector", "matrix", "channels_last", "scalar"]
Pair = tuple[oc.Adam, torch.optim.Adam]


def pair(dtype: torch.dtype = torch.float32) -> tuple[list[nn.Parameter], list[nn.Parameter], Pair]:
    mine, reference = parameters(KINDS, dtype), parameters(KINDS, dtype)
    optimizers = oc.Adam(mine, lr=0.01, fused=True), torch.optim.Adam(reference, lr=0.01)
    run(mine, reference, optimizers, range(3))
    return mine, reference, optimizers


def run(mine: list[nn.Parameter], reference: list[nn.Parameter], optimizers: Pair, steps: range) -> None:
    for step in steps:
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, reference, *optimizers)


def both(change: Callable[[nn.Parameter, torch.optim.Optimizer], None], i: int = 1) -> None:
    """Apply a change to parameter i and its optimizer on both sides, and go on."""
    mine, reference, optimizers = pair()
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        change(params[i], optimizer)
    run(mine, reference, optimizers, range(3, 6))
    assert not engines_used(optimizers[0])["eager"], "what is plainly dense again must be fused again"


def test_data_is_replaced() -> None:
    def change(param: nn.Parameter, _: torch.optim.Optimizer) -> None:
        param.data = param.detach() + 1

    both(change)


def test_data_is_replaced_in_another_memory_layout() -> None:
    """Same shape, same numbers: only the strides are new, those of the states are not."""

    def change(param: nn.Parameter, _: torch.optim.Optimizer) -> None:
        param.data = param.detach().t().contiguous().t()

    both(change)


def test_data_becomes_a_transposed_view_of_itself() -> None:
    """Same address, same shape, other strides."""
    mine, reference = ([nn.Parameter(torch.arange(16.0).reshape(4, 4))] for _ in range(2))
    optimizers = oc.Adam(mine, lr=0.01, fused=True), torch.optim.Adam(reference, lr=0.01)
    run(mine, reference, optimizers, range(3))
    for params in (mine, reference):
        params[0].data = params[0].data.t()
    run(mine, reference, optimizers, range(3, 6))


def test_state_tensor_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["exp_avg"] = optimizer.state[param]["exp_avg"] * 2

    both(change)


def test_step_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["step"] = torch.tensor(100.0)

    both(change)


def test_step_is_changed_in_place() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["step"].fill_(50)

    both(change)


def test_whole_state_of_a_parameter_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param] = {name: value.clone() + 1 for name, value in optimizer.state[param].items()}

    both(change)


def test_state_of_a_parameter_is_deleted() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        del optimizer.state[param]

    both(change)


def test_memory_of_a_state_is_replaced() -> None:
    """As code that moves states out of the way and back does."""

    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        state = optimizer.state[param]["exp_avg_sq"]
        state.data = state.detach().clone() * 3

    both(change)


def test_load_state_dict() -> None:
    mine, reference, optimizers = pair()
    early = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    run(mine, reference, optimizers, range(3, 6))
    for optimizer, state in zip(optimizers, early, strict=True):
        optimizer.load_state_dict(state)
    run(mine, reference, optimizers, range(6, 9))


def test_add_param_group() -> None:
    mine, reference, optimizers = pair()
    extra = parameters(["large"]), parameters(["large"])
    for optimizer, params in zip(optimizers, extra, strict=True):
        optimizer.add_param_group({"params": params, "lr": 0.5})
    run(mine + extra[0], reference + extra[1], optimizers, range(3, 6))


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


def test_a_step_that_is_no_number_is_taken_as_it_is() -> None:
    """As torch does: the update is NaN, not left out."""
    mine, reference, optimizers = pair()
    set_gradients(3, mine, reference)
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        for i, value in enumerate([float("nan"), float("inf"), 3.0, 2.0]):
            optimizer.state[params[i]]["step"].fill_(value)
        optimizer.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, equal_nan=True)


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


def test_nothing_of_torchs_is_called_that_warns() -> None:
    """An empty group, as a frozen backbone leaves it; under `-W error` a deprecated call would be an end."""
    weights = nn.Parameter(torch.ones(2))
    optimizer = oc.Adam([{"params": [weights]}, {"params": []}])
    weights.grad = torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


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


def test_parameter_is_appended_to_a_group() -> None:
    mine, reference, optimizers = pair()
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        params += parameters(["large"])
        optimizer.param_groups[0]["params"].append(params[-1])
    run(mine, reference, optimizers, range(3, 6))


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


def test_module_changes_dtype() -> None:
    """``module.to`` keeps the parameter objects and replaces what is in them."""
    mine, reference = (nn.Linear(3, 2), nn.Linear(3, 2))
    reference.load_state_dict(mine.state_dict())
    optimizers = oc.SGD(mine.parameters(), lr=0.1), torch.optim.SGD(reference.parameters(), lr=0.1)
    for step, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16, torch.float32]):
        for module in (mine, reference):
            module.to(dtype)
        for module, optimizer in zip((mine, reference), optimizers, strict=True):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            module(torch.randn(4, 3, generator=generator).to(dtype)).sum().backward()
            optimizer.step()
        used = engines_used(optimizers[0])
        assert used["cpu"] == 2
        for param, twin in zip(mine.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-2, atol=2e-3)  # bfloat16 has 3 digits


def test_parameter_of_a_group_is_exchanged() -> None:
    mine, reference, optimizers = pair()
    new = torch.randn(5, 3)
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        params[1] = nn.Parameter(new.clone())
        optimizer.param_groups[0]["params"][1] = params[1]
    run(mine, reference, optimizers, range(3, 6))


def test_parameter_leaves_a_group() -> None:
    mine, reference, optimizers = pair()
    for optimizer in optimizers:
        optimizer.param_groups[0]["params"].pop()
    run(mine, reference, optimizers, range(3, 6))


def test_option_that_needs_another_state_is_switched_on() -> None:
    """torch raises a KeyError here; we start the missing state at zero."""
    params = parameters(KINDS)
    optimizer = oc.Adam(params, fused=True)
    for amsgrad in (False, True, False):
        optimizer.param_groups[0]["amsgrad"] = amsgrad
        set_gradients(0, params)
        optimizer.step()
    assert "max_exp_avg_sq" in optimizer.state[params[0]]


def test_option_changes_the_formula() -> None:
    mine, reference, optimizers = pair()
    for step, options in enumerate([{"weight_decay": 0.1}, {"maximize": True}, {"betas": (0.5, 0.9)}]):
        for optimizer in optimizers:
            optimizer.param_groups[0].update(options)
        run(mine, reference, optimizers, range(3 + step, 4 + step))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_by_themselves(duplicate: Callable[[object], object]) -> None:
    mine, reference, optimizers = pair()
    (copied, optimizer), (twin, other) = (
        duplicate((mine, optimizers[0])),
        duplicate((reference, optimizers[1])),
    )  # type: ignore[misc]
    before = [param.detach().clone() for param in mine]
    run(copied, twin, (optimizer, other), range(3, 6))
    assert all(torch.equal(param, old) for param, old in zip(mine, before, strict=True))
    run(mine, reference, optimizers, range(3, 6))


def test_parameters_that_come_to_share_memory_are_updated_by_one_thread() -> None:
    """Tied after the plan was made, large enough for several threads: still as torch does it."""
    torch.set_num_threads(2)
    results = []
    for make in (oc.SGD, torch.optim.SGD):
        base = torch.linspace(0, 1, 500_000)
        first, second = nn.Parameter(base[:400_000]), nn.Parameter(base[100_000:].clone())
        for param in (first, second):
            param.grad = torch.ones_like(param)
        optimizer = make([first, second], lr=0.1, weight_decay=0.5)  # type: ignore[operator]
        optimizer.step()
        if make is oc.SGD:
            assert threads_used(optimizer) == [2]
        second.data = base[100_000:]
        optimizer.step()
        if make is oc.SGD:
            assert threads_used(optimizer) == [1], "threads would race"
        results.append(base)
    torch.testing.assert_close(*results)


def threads_used(optimizer: oc.ElementwiseOptimizer) -> list[int]:
    """By each bucket, in the last step."""
    groups = optimizer._stepper.groups
    return [int(bucket.guards.frame[frame.THREADS]) for group in groups for bucket in group.buckets]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_gradient_that_comes_to_share_memory_with_a_parameter(prepared: bool) -> None:
    """One parameter's gradient is another parameter: its new value counts, or the old one, as with torch."""
    torch.set_num_threads(2)
    results = []
    for make in (oc.SGD, torch.optim.SGD):
        params = [nn.Parameter(torch.linspace(0, 1, 200_000) + i) for i in range(2)]
        optimizer = make(params, lr=0.1)  # type: ignore[operator]
        for _ in range(3 if prepared else 1):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
        params[1].grad = params[0].detach()
        params[0].grad = torch.ones_like(params[0])
        optimizer.step()
        results.append(params)
    for mine, theirs_ in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs_)


def saved_for_backward(optimizer_class: type[torch.optim.Optimizer], what: str) -> None:
    weights = nn.Parameter(torch.ones(3))
    optimizer = optimizer_class([weights], lr=0.1)  # type: ignore[call-arg]
    weights.grad = torch.ones(3)
    optimizer.step()
    factor: Tensor = weights if what == "parameter" else optimizer.state[weights][what]
    other = torch.ones(3, requires_grad=True)
    loss = (other * factor).sum()
    optimizer.step()
    loss.backward()


@pytest.mark.parametrize("what", ["parameter", "exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("make", [oc.Adam, torch.optim.Adam], ids=["ours", "torch"])
def test_change_between_forward_and_backward_is_reported(
    make: type[torch.optim.Optimizer], what: str
) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved_for_backward(make, what)
