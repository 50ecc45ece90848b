"""CyclicLR: the paper's formula, torch's sequences, and what is better than torch's."""

from __future__ import annotations

import functools
import gc
import inspect
import io
import math
import pickle
import warnings
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import CyclicLR
from torchopt_course.lr_scheduler.cyclic import triangular_wave

from .twins import OPTIMIZERS, assert_same_rates, flat, floats, make_optimizer, rates, step_as_trained

TorchCyclic = torch_schedulers.CyclicLR


class Halving:
    """A scale_fn that is an object, and so has something to save."""

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def __call__(self, x: float) -> float:
        return float(self.factor ** (x % 7))


def one_over(x: float) -> float:
    return 1 / (1 + x)


# ---------------------------------------------------------------- the schedule


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


@settings(max_examples=300)
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


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"base_lr": -0.1}, ValueError, "-0.1"),
        ({"base_lr": math.nan}, ValueError, "nan"),
        ({"base_lr": [0.1, 0.2, 0.3]}, ValueError, "base_lr has 3 values, param_groups has 2"),
        ({"base_lr": None}, TypeError, "base_lr"),
        ({"max_lr": [1.0]}, ValueError, "max_lr has 1 values"),
        ({"max_lr": [1.0, -1.0]}, ValueError, "-1.0"),
        ({"max_lr": "high"}, TypeError, "max_lr.*'high'"),
        ({"step_size_up": 0}, ValueError, "step_size_up: 0"),
        ({"step_size_up": -3}, ValueError, "step_size_up: -3"),
        ({"step_size_down": -1}, ValueError, "-1"),
        ({"mode": "triangle"}, ValueError, "'triangle'"),
        ({"scale_fn": one_over, "scale_mode": "cycles"}, ValueError, "'cycles'"),
        ({"gamma": 0.0, "mode": "exp_range"}, ValueError, "gamma: 0.0"),
        ({"gamma": math.nan}, ValueError, "gamma: nan"),
        ({"gamma": None}, TypeError, "gamma: None"),
        ({"step_size_up": "3"}, TypeError, "step_size_up: '3'"),
        ({"step_size_up": None}, TypeError, "step_size_up: None"),
        ({"base_momentum": -0.1}, ValueError, "-0.1"),
        ({"max_momentum": [0.9]}, ValueError, "max_momentum has 1 values"),
    ],
)
def test_a_bad_value_is_named_and_the_optimizer_left_alone(
    change: dict[str, Any], error: type, named: str
) -> None:
    optimizer = make_optimizer(groups=2)
    before = str(optimizer.param_groups)
    with pytest.raises(error, match=named):
        CyclicLR(optimizer, **{"base_lr": 0.1, "max_lr": 1.0, **change})
    assert str(optimizer.param_groups) == before


def test_what_cannot_be_scheduled() -> None:
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        CyclicLR([], 0.1, 1.0)  # type: ignore[arg-type]
    adagrad = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="Adagrad has neither: pass cycle_momentum=False"):
        CyclicLR(adagrad, 0.1, 1.0)
    CyclicLR(adagrad, 0.1, 1.0, cycle_momentum=False)
    with pytest.raises(ValueError, match=r"max_momentum: 1.0 \(expected a number in \[0, 1\)"):
        CyclicLR(make_optimizer("Adam"), 0.1, 1.0, max_momentum=1.0)


def test_torch_takes_an_unknown_scale_mode_for_iterations() -> None:
    lrs = []
    for mode in ("cycles", "iterations"):
        scheduler = TorchCyclic(make_optimizer(), 0.0, 1.0, 4, scale_fn=one_over, scale_mode=mode)  # type: ignore[arg-type]
        step_as_trained(scheduler)
        lrs += scheduler.get_last_lr()
    assert lrs[0] == lrs[1]


# ---------------------------------------------------------------- where torch is wrong


def test_loading_leaves_the_callers_state_alone() -> None:
    state = TorchCyclic(make_optimizer(), 0.1, 1.0).state_dict()
    before = deepcopy(state)
    TorchCyclic(make_optimizer(), 0.1, 1.0).load_state_dict(state)
    assert set(before) - set(state) == {"_scale_fn_custom"}
    with pytest.raises(KeyError):
        TorchCyclic(make_optimizer(), 0.1, 1.0).load_state_dict(state)

    mine = CyclicLR(make_optimizer(), 0.1, 1.0)
    state = mine.state_dict()
    before = deepcopy(state)
    for _ in range(2):
        other = CyclicLR(make_optimizer(), 0.1, 1.0)
        other.load_state_dict(state)
        other.base_lrs[0] = 0.5
        step_as_trained(other)
    assert state == before
    state["max_lrs"].append(3.0)
    assert mine.max_lrs == [1.0]


ORDERS = {
    "optimizer loaded, scheduler constructed": "os",
    "scheduler constructed, optimizer loaded": "so",
    "scheduler loaded first": "sLo",
    "optimizer never loaded": "s",
}


def resumed(kind: Any, name: str, order: str, config: dict[str, Any], done: int) -> tuple[Any, Any]:
    """The scheduler of an uninterrupted run and that of one resumed in the given order."""
    first = kind(make_optimizer(name), **config)
    for _ in range(done):
        step_as_trained(first)
    file = io.BytesIO()
    torch.save({"o": first.optimizer.state_dict(), "s": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer = make_optimizer(name)
    scheduler, loaded = None, False
    for step in order:
        if step == "s":
            scheduler = kind(optimizer, **config)
        elif step == "L":
            scheduler.load_state_dict(saved["s"])
            loaded = True
        else:
            optimizer.load_state_dict(saved["o"])
            optimizer._opt_called = True  # type: ignore[attr-defined]
    if not loaded:
        scheduler.load_state_dict(saved["s"])
    return first, scheduler


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("name", [*OPTIMIZERS])
@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_a_resumed_run_goes_on_exactly(order: str, name: str, mode: str) -> None:
    config = {
        "base_lr": 0.1,
        "max_lr": 0.7,
        "step_size_up": 3,
        "step_size_down": 4,
        "mode": mode,
        "gamma": 0.9,
    }
    uninterrupted, other = resumed(CyclicLR, name, order, config, done=12)
    for _ in range(15):
        # Bit for bit, and what is shown is what is applied.
        assert rates(other.optimizer) == rates(uninterrupted.optimizer)
        assert other.get_last_lr() == [group["lr"] for group in other.optimizer.param_groups]
        step_as_trained(uninterrupted)
        step_as_trained(other)


def test_torch_shows_one_rate_and_applies_another_after_resuming() -> None:
    config = {"base_lr": 0.1, "max_lr": 0.7, "step_size_up": 3}
    uninterrupted, other = resumed(TorchCyclic, "SGD", "os", config, done=2)
    shown, applied = other.get_last_lr()[0], other.optimizer.param_groups[0]["lr"]
    assert shown == uninterrupted.get_last_lr()[0] == pytest.approx(0.5)
    assert applied == 0.1


@pytest.mark.parametrize("kind", ["torch.RMSprop", "RMSprop"])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("bounds", [(0.8, 0.9), (0.5, 0.0)])
def test_rmsprop_after_any_number_of_steps(kind: str, steps: int, bounds: tuple[float, float]) -> None:
    def train(scheduler_class: Any) -> torch.Tensor:
        optimizer = make_optimizer(kind, lr=0.01)
        (param,) = optimizer.param_groups[0]["params"]

        def step() -> None:
            param.grad = param.detach().clone()
            optimizer.step()

        for _ in range(steps):
            step()
        # The second pair of bounds starts without momentum, so that states are made without velocity.
        scheduler = scheduler_class(optimizer, 0.01, 0.02, 2, base_momentum=bounds[0], max_momentum=bounds[1])
        for _ in range(5):
            step()
            scheduler.step()
        return param

    if kind == "torch.RMSprop" and (steps or bounds[1] == 0.0):
        with pytest.raises(KeyError, match="momentum_buffer"):
            train(TorchCyclic)
    result = train(CyclicLR)
    # The truth: RMSprop with a velocity that is zero until there is momentum, by hand.
    p = torch.ones(2, dtype=torch.float64)
    square, velocity = torch.zeros(2).double(), torch.zeros(2).double()
    schedule = CyclicLR(make_optimizer("SGD"), 0.01, 0.02, 2, base_momentum=bounds[0], max_momentum=bounds[1])
    for step in range(steps + 5):
        lr, momentum = rates(schedule.optimizer)[0] if step >= steps else (0.01, 0.0)
        square = 0.99 * square + 0.01 * p * p
        update = p / (square.sqrt() + 1e-8)
        if momentum:
            update = velocity = momentum * velocity + update
        p = p - lr * update
        if step >= steps:
            step_as_trained(schedule)
    torch.testing.assert_close(result.detach().double(), p, rtol=1e-5, atol=1e-6)


def test_velocity_is_there_before_the_next_step_of_a_resumed_rmsprop() -> None:
    """The optimizer's checkpoint is one without momentum, the scheduler's one in the middle of a cycle."""
    optimizer = make_optimizer("torch.RMSprop")
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = torch.ones(2)
    optimizer.step()
    plain = deepcopy(optimizer.state_dict())
    scheduler = CyclicLR(optimizer, 0.01, 0.02, 2)
    optimizer.load_state_dict(plain)
    step_as_trained(scheduler)
    optimizer.step()
    assert "momentum_buffer" in optimizer.state[param]


def test_triangular2_goes_on_after_1024_cycles() -> None:
    with pytest.raises(OverflowError):
        TorchCyclic(make_optimizer(), 0.1, 1.0, 2, mode="triangular2")._update_lr(4 * 1025 + 1)
    scheduler = CyclicLR(make_optimizer(), 0.1, 1.0, 2, mode="triangular2")
    scheduler._update_lr(4 * 1025 + 1)
    assert scheduler.get_last_lr() == [0.1]


def test_begins_at_base_lr_also_when_there_was_a_scheduler_before() -> None:
    def first(kind: Any) -> float:
        optimizer = make_optimizer(lr=0.5)
        torch_schedulers.StepLR(optimizer, 10)
        return float(kind(optimizer, 0.1, 1.0).get_last_lr()[0])

    assert first(TorchCyclic) == 0.5
    assert first(CyclicLR) == 0.1


@pytest.mark.parametrize("bounds", [(0.1, 1.0), ([0.1, 0.1], [1.0, 1.0])])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_group_added_later(name: str, bounds: Any) -> None:
    def run(kind: Any) -> Any:
        optimizer = make_optimizer(name, groups=2)
        scheduler = kind(optimizer, *bounds, 4)
        step_as_trained(scheduler)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        step_as_trained(scheduler)
        return scheduler

    with pytest.raises(ValueError, match="zip"):
        run(TorchCyclic)
    if isinstance(bounds[0], list):
        with pytest.raises(ValueError, match="3 parameter groups, but CyclicLR has bounds for 2"):
            run(CyclicLR)
        return
    scheduler = run(CyclicLR)
    assert len({*rates(scheduler.optimizer)}) == 1
    assert len(scheduler.get_last_lr()) == 3
    # Resumed where the optimizer has its third group already, or gets it yet.
    for groups in (3, 2):
        other = CyclicLR(make_optimizer(name, groups), *bounds, 4)
        other.load_state_dict(scheduler.state_dict())
        if groups == 2:
            with pytest.raises(ValueError, match="2 parameter groups, but CyclicLR has bounds for 3"):
                step_as_trained(deepcopy(other))
            other.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        step_as_trained(other)
        assert other.get_last_lr() == pytest.approx([0.1 + 0.9 * 3 / 4] * 3)


def test_looking_at_the_rate_changes_nothing() -> None:
    def momentum_after_a_look(kind: Any) -> float:
        scheduler = kind(make_optimizer(), 0.1, 1.0, 4)
        scheduler.last_epoch = 2
        with pytest.warns(UserWarning, match="get_last_lr"):
            assert scheduler.get_lr() == [pytest.approx(0.55)]
        return float(scheduler.optimizer.param_groups[0]["momentum"])

    assert momentum_after_a_look(TorchCyclic) == pytest.approx(0.85)
    assert momentum_after_a_look(CyclicLR) == 0.9


def test_tensor_rates_and_betas_stay_tensors_of_their_group() -> None:
    def make(kind: Any) -> Any:
        options = {"lr": torch.tensor(0.5), "betas": (torch.tensor(0.9), torch.tensor(0.99))}
        optimizer = make_optimizer("torch.Adam", groups=2, **options)
        scheduler = kind(
            optimizer, [0.125, 0.25], [1.0, 2.0], 4, base_momentum=[0.25, 0.5], max_momentum=[0.5, 0.75]
        )
        return scheduler, [group["lr"] for group in optimizer.param_groups]

    scheduler, _ = make(TorchCyclic)
    assert floats(scheduler.get_last_lr()) == [0.25, 0.25]  # both groups hold one tensor
    assert not isinstance(scheduler.optimizer.param_groups[0]["betas"][0], torch.Tensor)

    scheduler, tensors = make(CyclicLR)
    assert [group["initial_lr"].item() for group in scheduler.optimizer.param_groups] == [0.125, 0.25]
    for expected in ([0.125, 0.25], [0.34375, 0.6875]):
        groups = scheduler.optimizer.param_groups
        assert floats(scheduler.get_last_lr()) == expected == [group["lr"].item() for group in groups]
        assert all(group["lr"] is tensor for group, tensor in zip(groups, tensors, strict=True))
        assert all(isinstance(beta, torch.Tensor) for group in groups for beta in group["betas"])
        step_as_trained(scheduler)
    assert [group["betas"][0].item() for group in groups] == [0.375, 0.625]
    assert all(lr is not tensor for lr, tensor in zip(scheduler.get_last_lr(), tensors, strict=True))


def test_a_tensor_rate_of_shape_one_and_tensor_bounds() -> None:
    scheduler = CyclicLR(
        make_optimizer("Adam", lr=torch.tensor([0.5])), torch.tensor(0.125), torch.tensor(1.0), 4
    )
    step_as_trained(scheduler)
    assert floats(scheduler.get_last_lr()) == [0.34375]
    plain = CyclicLR(make_optimizer(), torch.tensor(0.125), torch.tensor(1.0), 4)
    assert type(plain.optimizer.param_groups[0]["lr"]) is float


# ---------------------------------------------------------------- checkpoints


def test_state_has_torchs_keys_and_one_more() -> None:
    mine, theirs = (kind(make_optimizer(), 0.1, 1.0).state_dict() for kind in (CyclicLR, TorchCyclic))
    assert set(mine) == {*theirs, "_applied"}
    for key, value in theirs.items():
        assert mine[key] == value, key


def test_what_torch_hands_on_of_our_state_is_not_believed_later() -> None:
    """Ours to torch's, some steps there, and back: the rates that ours had saved are long out of date."""
    mine = CyclicLR(make_optimizer(), 0.1, 1.0, 4)
    step_as_trained(mine)
    theirs = TorchCyclic(make_optimizer(), 0.1, 1.0, 4)
    theirs.load_state_dict(mine.state_dict())
    for _ in range(2):
        step_as_trained(theirs)
    assert "_applied" in theirs.state_dict()
    back = CyclicLR(make_optimizer(), 0.1, 1.0, 4)
    back.load_state_dict(theirs.state_dict())
    assert_same_rates(back.optimizer, theirs.optimizer)


def test_a_scale_object_is_saved_and_a_function_is_named() -> None:
    state = CyclicLR(make_optimizer(), 0.1, 1.0, 2, scale_fn=Halving(0.25)).state_dict()
    assert state["_scale_fn_custom"] == {"factor": 0.25}
    for kind in (CyclicLR, TorchCyclic):
        other = kind(make_optimizer(), 0.1, 1.0, 2, scale_fn=Halving())
        other.load_state_dict(dict(state))
        assert other.scale_fn(1) == 0.25
    with pytest.raises(ValueError, match="constructed without one"):
        CyclicLR(make_optimizer(), 0.1, 1.0, 2).load_state_dict(state)

    functions: list[tuple[Callable[[float], float], str]] = [
        (lambda x: 1.0, "<lambda>"),
        (one_over, "one_over"),
        (math.sqrt, "sqrt"),
        (functools.partial(math.pow, 0.5), "partial"),
    ]
    for function, name in functions:
        scheduler = CyclicLR(make_optimizer(), 0.1, 1.0, 2, scale_fn=function)
        with pytest.warns(UserWarning, match=f"scale_fn=.*{name}.* is not saved") as caught:
            state = scheduler.state_dict()
        assert caught[0].filename == __file__
        assert state["_scale_fn_custom"] is None
        other = CyclicLR(make_optimizer(), 0.1, 1.0, 2, scale_fn=function)
        other.load_state_dict(state)


def test_no_warning_without_a_function() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CyclicLR(make_optimizer(), 0.1, 1.0).state_dict()


def test_the_state_of_something_else_is_refused() -> None:
    scheduler = CyclicLR(make_optimizer(), 0.1, 1.0)
    before = scheduler.state_dict()
    with pytest.raises(KeyError, match="not the state of a CyclicLR"):
        scheduler.load_state_dict(torch_schedulers.StepLR(make_optimizer(), 1).state_dict())
    assert scheduler.state_dict() == before


def test_pickles_and_copies() -> None:
    scheduler = CyclicLR(make_optimizer("Adam"), 0.0, 1.0, 4, mode="exp_range", scale_fn=Halving())
    step_as_trained(scheduler)
    for twin in (pickle.loads(pickle.dumps(scheduler)), deepcopy(scheduler)):
        step_as_trained(twin)
        assert twin.get_last_lr() == [0.25]
    assert scheduler.get_last_lr() == [0.125]


def test_a_subclass_overrides_get_lr() -> None:
    class Capped(CyclicLR):
        def get_lr(self) -> list[float | torch.Tensor]:
            return [min(lr, 0.3) for lr in super().get_lr()]

    scheduler = Capped(make_optimizer(), 0.1, 1.0, 2)
    step_as_trained(scheduler)
    assert rates(scheduler.optimizer) == [(0.3, pytest.approx(0.85))]
