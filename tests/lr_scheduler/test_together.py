"""Our schedulers next to torch's others: chained, in sequence, as a module."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

import torchopt_course as oc

from .twins import assert_same_rates, floats, make_optimizer, rates, step_as_trained

OTHERS: dict[str, Any] = {
    "StepLR": lambda optimizer: torch_schedulers.StepLR(optimizer, 3, gamma=0.5),
    "MultiStepLR": lambda optimizer: torch_schedulers.MultiStepLR(optimizer, [2, 5], gamma=0.3),
    "ConstantLR": lambda optimizer: torch_schedulers.ConstantLR(optimizer, 0.5, total_iters=4),
    "LinearLR": lambda optimizer: torch_schedulers.LinearLR(optimizer, 0.25, total_iters=5),
    "ExponentialLR": lambda optimizer: torch_schedulers.ExponentialLR(optimizer, 0.9),
    "CosineAnnealingLR": lambda optimizer: torch_schedulers.CosineAnnealingLR(optimizer, 7),
    "LambdaLR": lambda optimizer: torch_schedulers.LambdaLR(optimizer, lambda t: 1 / (1 + t)),
    "PolynomialLR": lambda optimizer: torch_schedulers.PolynomialLR(optimizer, 9),
}


def combine(how: str, cyclic_class: Any, other: str, optimizer: Any) -> Any:
    """CyclicLR together with one of torch's, in one of the ways that torch offers."""

    def make_cyclic() -> Any:
        return cyclic_class(optimizer, 0.1, 0.5, 2, 3, "triangular2")

    if how.startswith("chained"):
        schedulers = [make_cyclic(), OTHERS[other](optimizer)]
        if how.endswith("reversed"):
            schedulers.reverse()
        return torch_schedulers.ChainedScheduler(schedulers, optimizer)
    makers = [make_cyclic, lambda: OTHERS[other](optimizer)]
    if how.endswith("reversed"):
        makers.reverse()
    return torch_schedulers.SequentialLR(optimizer, [make() for make in makers], milestones=[6])


WAYS = ["chained", "chained reversed", "sequential", "sequential reversed"]


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@settings(max_examples=120)
@given(st.sampled_from(WAYS), st.sampled_from([*OTHERS]), st.sampled_from(["SGD", "torch.Adam"]), st.data())
def test_combinations_give_torchs_sequences_also_across_a_checkpoint(
    how: str, other: str, name: str, data: Any
) -> None:
    def make(kind: Any) -> Any:
        return combine(how, kind, other, make_optimizer(name, groups=2, lr=0.1))

    mine, theirs = make(oc.CyclicLR), make(torch_schedulers.CyclicLR)
    exchange = data.draw(st.integers(0, 16))
    assert_same_rates(mine.optimizer, theirs.optimizer, "made")
    for step in range(16):
        if step == exchange:  # each goes on from the other's checkpoint
            saved = [deepcopy((s.optimizer.state_dict(), s.state_dict())) for s in (theirs, mine)]
            mine, theirs = make(oc.CyclicLR), make(torch_schedulers.CyclicLR)
            for scheduler, (optimizer_state, state) in zip((mine, theirs), saved, strict=True):
                scheduler.optimizer.load_state_dict(optimizer_state)
                scheduler.load_state_dict(state)
        step_as_trained(mine)
        step_as_trained(theirs)
        assert_same_rates(mine.optimizer, theirs.optimizer, step)
        assert floats(mine.get_last_lr()) == pytest.approx(floats(theirs.get_last_lr()))


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("other", ["ExponentialLR", "StepLR", "LinearLR"])
@pytest.mark.parametrize(
    "order", ["optimizer loaded first", "optimizer loaded between", "optimizer loaded last"]
)
@pytest.mark.parametrize("done", [4, 8])
def test_a_resumed_combination_goes_on_exactly(how: str, other: str, order: str, done: int) -> None:
    """Other schedulers multiply the rate that they find: wrong once is wrong for good."""
    uninterrupted = combine(how, oc.CyclicLR, other, make_optimizer(lr=0.1))
    for _ in range(done):
        step_as_trained(uninterrupted)
    optimizer_state, state = deepcopy((uninterrupted.optimizer.state_dict(), uninterrupted.state_dict()))
    optimizer = make_optimizer(lr=0.1)
    if order == "optimizer loaded first":
        optimizer.load_state_dict(optimizer_state)
    resumed = combine(how, oc.CyclicLR, other, optimizer)
    if order == "optimizer loaded between":
        optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(state)
    if order == "optimizer loaded last":
        optimizer.load_state_dict(optimizer_state)
    for _ in range(8):
        assert rates(resumed.optimizer) == rates(uninterrupted.optimizer)
        step_as_trained(resumed)
        step_as_trained(uninterrupted)


@pytest.mark.parametrize("other", [*OTHERS])
def test_plateau_next_to_a_schedule_of_torchs(other: str) -> None:
    def run(kind: Any) -> list[Any]:
        optimizer = make_optimizer(lr=1.0, groups=2)
        plateau, schedule = kind(optimizer, patience=1, factor=0.5), OTHERS[other](optimizer)
        seen = []
        for loss in [3.0, 2.0, 2.0, 2.0, 1.0, 1.5, 1.5, 1.5]:
            step_as_trained(schedule)
            plateau.step(loss)
            seen.append((rates(optimizer), plateau.get_last_lr()))
        return seen

    assert run(oc.ReduceLROnPlateau) == run(torch_schedulers.ReduceLROnPlateau)


@pytest.mark.parametrize(
    "combination", [torch_schedulers.ChainedScheduler, torch_schedulers.SequentialLR], ids=["chained", "seq"]
)
def test_plateau_is_refused_where_torch_refuses_it(combination: Any) -> None:
    optimizer = make_optimizer()
    arguments: Any = ([oc.ReduceLROnPlateau(optimizer), torch_schedulers.StepLR(optimizer, 1)],)
    if combination is torch_schedulers.SequentialLR:
        arguments = (optimizer, *arguments, [3])
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        combination(*arguments)


def test_the_module_offers_every_name_of_torchs() -> None:
    ours = {"CyclicLR", "ReduceLROnPlateau"}
    for name in torch_schedulers.__all__:
        assert (getattr(oc.lr_scheduler, name) is getattr(torch_schedulers, name)) == (name not in ours)
        assert name in dir(oc.lr_scheduler)
    from torchopt_course.lr_scheduler import OneCycleLR  # by its path too

    assert OneCycleLR is torch_schedulers.OneCycleLR
    with pytest.raises(AttributeError, match="'NoSuchLR'"):
        oc.lr_scheduler.NoSuchLR  # noqa: B018


def test_all_that_is_ours_is_at_the_top() -> None:
    for name in ("CyclicLR", "ReduceLROnPlateau", "lr_range_test", "preview_schedule"):
        value = getattr(oc, name)
        assert value is getattr(oc.lr_scheduler, name)
        assert value.__module__.startswith("torchopt_course.")
        assert inspect.getdoc(value)
        assert name in oc.__all__
    assert torch.optim.lr_scheduler.CyclicLR is not oc.CyclicLR
