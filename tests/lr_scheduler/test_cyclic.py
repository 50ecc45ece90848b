"""CyclicLR: the paper's formula and torch's sequences."""

from __future__ import annotations

import gc
import inspect
import math
import weakref
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import CyclicLR
from torchopt_course.lr_scheduler.triangular import triangular_wave

from .twins import (
    OPTIMIZERS,
    Halving,
    assert_same_rates,
    flat,
    floats,
    make_optimizer,
    one_over,
    rates,
    step_as_trained,
)

TorchCyclic = torch_schedulers.CyclicLR


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_wave_is_that_of_the_paper(iteration: int, stepsize: int) -> None:
    """Listing 1 of arXiv 1506.01186."""
    cycle = math.floor(1 + iteration / (2 * stepsize))
    x = abs(iteration / stepsize - 2 * cycle + 1)
    assert triangular_wave(iteration, 2 * stepsize, 0.5) == (cycle, pytest.approx(max(0, 1 - x), abs=1e-10))


@given(st.integers(1, 300), st.integers(0, 300))
def test_wave_meets_its_corners_exactly(up: int, down: int) -> None:
    total = up + down
    assert triangular_wave(0, total, up / total) == (1, 0.0)
    assert triangular_wave(total, total, up / total) == (2, 0.0)
    if down:
        assert triangular_wave(up, total, up / total) == (1, 1.0)


def test_three_modes_over_two_cycles() -> None:
    def lrs(**change: Any) -> list[float]:
        scheduler = CyclicLR(make_optimizer(), 0.1, 0.5, 2, **change)
        seen = floats(scheduler.get_last_lr())
        for _ in range(8):
            scheduler.step()
            seen += floats(scheduler.get_last_lr())
        return seen

    assert lrs() == pytest.approx([0.1, 0.3, 0.5, 0.3, 0.1, 0.3, 0.5, 0.3, 0.1])
    assert lrs(mode="triangular2") == pytest.approx([0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2, 0.1])
    assert lrs(mode="exp_range", gamma=0.5) == pytest.approx(
        [0.1, 0.1 + 0.1, 0.1 + 0.1, 0.1 + 0.025, 0.1, 0.1 + 0.2 / 32, 0.1 + 0.4 / 64, 0.1 + 0.2 / 128, 0.1]
    )
    assert lrs(step_size_down=0) == pytest.approx([0.1, 0.3] * 4 + [0.1])


bound = st.one_of(st.sampled_from([0.0, 1e-4, 0.01, 0.1, 1.0]), st.floats(0, 2))
fraction = st.sampled_from([0.0, 0.5, 0.8, 0.85, 0.9, 0.95])


@st.composite
def configurations(draw: Any, groups: int) -> dict[str, Any]:
    def for_groups(values: Any) -> Any:
        return draw(st.one_of(values, st.lists(values, min_size=groups, max_size=groups)))

    config = {
        "base_lr": for_groups(bound),
        "max_lr": for_groups(bound),
        "step_size_up": draw(st.integers(1, 12)),
        "step_size_down": draw(st.one_of(st.none(), st.integers(0, 12))),
        "mode": draw(st.sampled_from(["triangular", "triangular2", "exp_range"])),
        "gamma": draw(st.sampled_from([1.0, 0.9, 0.999, 1.01])),
        "cycle_momentum": draw(st.booleans()),
        "base_momentum": for_groups(fraction),
        "max_momentum": for_groups(fraction),
    }
    if draw(st.booleans()):
        config["scale_fn"] = draw(st.sampled_from([Halving(), one_over]))
        config["scale_mode"] = draw(st.sampled_from(["cycle", "iterations"]))
    return config


@settings(max_examples=100)
@given(st.data())
@pytest.mark.filterwarnings("ignore:scale_fn")
def test_sequences_are_those_of_torch_also_across_a_checkpoint(data: Any) -> None:
    groups = data.draw(st.integers(1, 3), "groups")
    config = data.draw(configurations(groups), "options")
    name = data.draw(st.sampled_from([*OPTIMIZERS]), "optimizer")
    mine = CyclicLR(make_optimizer(name, groups), **config)
    theirs = TorchCyclic(make_optimizer(name, groups), **config)
    steps = data.draw(st.integers(1, 40), "steps")
    exchange = data.draw(st.integers(0, steps), "checkpoint at")
    for step in range(steps):
        if step == exchange:  # each goes on from the other's checkpoint
            saved = [deepcopy((s.optimizer.state_dict(), s.state_dict())) for s in (theirs, mine)]
            mine = CyclicLR(make_optimizer(name, groups), **config)
            theirs = TorchCyclic(make_optimizer(name, groups), **config)
            for scheduler, (optimizer_state, state) in zip((mine, theirs), saved, strict=True):
                scheduler.optimizer.load_state_dict(optimizer_state)
                scheduler.load_state_dict(state)
            assert_same_rates(mine.optimizer, theirs.optimizer, "loaded")
        step_as_trained(mine)
        step_as_trained(theirs)
        assert_same_rates(mine.optimizer, theirs.optimizer, step)
        assert floats(mine.get_last_lr()) == [group["lr"] for group in mine.optimizer.param_groups]
        assert mine.last_epoch == theirs.last_epoch


@pytest.mark.parametrize("name", [*OPTIMIZERS])
@pytest.mark.parametrize("mode", ["triangular2", "exp_range"])
def test_far_into_training(name: str, mode: Any) -> None:
    schedulers = [
        kind(make_optimizer(name), 1e-3, 0.1, 2000, 1500, mode, gamma=0.99999)
        for kind in (CyclicLR, TorchCyclic)
    ]
    for iteration in [*range(1, 30_000, 37), 1_000_000, 1_000_001]:
        for scheduler in schedulers:
            scheduler._update_lr(iteration)
        assert_same_rates(*(scheduler.optimizer for scheduler in schedulers), iteration)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", ["SGD", "torch.Adam"])
def test_last_epoch_and_epoch_as_in_torch(name: str) -> None:
    def run(kind: Any) -> list[float]:
        first = kind(make_optimizer(name), 0.1, 1.0, 4)
        for _ in range(5):
            step_as_trained(first)
        seen = flat(rates(first.optimizer))
        second = kind(first.optimizer, 0.1, 1.0, 4, last_epoch=first.last_epoch)
        seen += flat(rates(second.optimizer))
        second.step(2)
        seen += flat(rates(second.optimizer))
        step_as_trained(second)
        return seen + flat(rates(second.optimizer)) + floats(second.get_last_lr())

    assert run(CyclicLR) == pytest.approx(run(TorchCyclic), rel=1e-12)
    with pytest.raises(KeyError, match="initial_lr"):
        CyclicLR(make_optimizer(name), 0.1, 1.0, last_epoch=3)


def test_is_torchs_class_with_its_signature() -> None:
    assert isinstance(CyclicLR(make_optimizer(), 0.1, 1.0), TorchCyclic)
    mine, theirs = (inspect.signature(c).parameters for c in (CyclicLR, TorchCyclic))
    assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in theirs.values()]


def test_nothing_of_torchs_arithmetic_is_in_use() -> None:
    left_to_torch = {
        name
        for name in vars(TorchCyclic)
        if callable(getattr(TorchCyclic, name)) and getattr(CyclicLR, name) is getattr(TorchCyclic, name)
    }
    # Never called by ours.
    scales = {"_triangular_scale_fn", "_triangular2_scale_fn", "_exp_range_scale_fn"}
    assert left_to_torch == {"_init_scale_fn"} | scales


def test_param_groups_have_torchs_keys() -> None:
    for name in OPTIMIZERS:
        mine, theirs = (make_optimizer(name) for _ in range(2))
        CyclicLR(mine, 0.1, 1.0)
        TorchCyclic(theirs, 0.1, 1.0)
        assert set(mine.param_groups[0]) == set(theirs.param_groups[0])


@pytest.mark.parametrize("kind", [CyclicLR, TorchCyclic])
def test_warns_of_steps_in_the_wrong_order(kind: Any) -> None:
    optimizer = make_optimizer()
    optimizer._opt_called = False  # type: ignore[attr-defined]
    scheduler = kind(optimizer, 0.1, 1.0)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step\(\)`") as caught:
        scheduler.step()
    assert caught[0].filename == __file__


def test_no_reference_cycle() -> None:
    gc.disable()
    try:
        optimizer = make_optimizer()
        scheduler = CyclicLR(optimizer, 0.1, 1.0, mode="exp_range")
        optimizer.step()
        scheduler.step()
        scheduler.load_state_dict(scheduler.state_dict())
        ends = [weakref.ref(scheduler), weakref.ref(optimizer)]
        del scheduler
        assert ends[0]() is None
        del optimizer
        assert ends[1]() is None
    finally:
        gc.enable()


def test_a_subclass_overrides_get_lr() -> None:
    class Capped(CyclicLR):
        def get_lr(self) -> list[float | torch.Tensor]:
            return [min(lr, 0.3) for lr in super().get_lr()]

    scheduler = Capped(make_optimizer(), 0.1, 1.0, 2)
    step_as_trained(scheduler)
    assert rates(scheduler.optimizer) == [(0.3, pytest.approx(0.85))]
