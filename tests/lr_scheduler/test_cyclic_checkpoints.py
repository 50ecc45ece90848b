"""CyclicLR: a resumed run goes on exactly, and what a checkpoint holds."""

from __future__ import annotations

import functools
import io
import math
import pickle
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import CyclicLR

from .twins import OPTIMIZERS, Halving, assert_same_rates, make_optimizer, one_over, rates, step_as_trained

TorchCyclic = torch_schedulers.CyclicLR


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
