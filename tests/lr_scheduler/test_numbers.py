"""Every number that a scheduler keeps or writes is Python's own, whatever it was given.

A checkpoint with one of numpy's cannot be loaded with ``weights_only=True``, the default.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

import torchopt_course as oc
from torchopt_course import CyclicLR, ReduceLROnPlateau
from torchopt_course.lr_scheduler.groups import plain

from .twins import OPTIMIZERS, assert_same_rates, make_optimizer, step_as_trained


def assert_plain(state: dict[str, Any]) -> None:
    def check(name: str, value: Any) -> None:
        if isinstance(value, list | tuple):
            for one in value:
                check(name, one)
        else:
            assert type(value) in (int, float, bool, str, type(None)), (name, value)

    state = {name: value for name, value in state.items() if name != "params"}
    for name, value in state.items():
        check(name, value)
    saved = io.BytesIO()
    torch.save(state, saved)
    saved.seek(0)
    torch.load(saved, weights_only=True)


KINDS_OF_NUMBERS: dict[str, Any] = {
    "numpy": np.float64,
    "float32": np.float32,
    "an array": np.asarray,
    "a tensor": torch.tensor,
    "a fraction": Fraction,
}


@pytest.mark.parametrize("kind", [*KINDS_OF_NUMBERS])
@pytest.mark.parametrize("lists", [False, True])
def test_plateau_keeps_and_writes_pythons_numbers(kind: str, lists: bool) -> None:
    number = KINDS_OF_NUMBERS[kind]
    optimizer = make_optimizer(lr=np.float64(1.0))
    min_lr = number(0.25)
    scheduler = ReduceLROnPlateau(
        optimizer,
        factor=number(0.5),
        patience=np.int64(0),  # type: ignore[arg-type]
        threshold=number(0.5),
        cooldown=np.int32(0),  # type: ignore[arg-type]
        min_lr=[min_lr] if lists else min_lr,
        eps=number(0.0),
    )
    for metric in (1.0, number(1.0), np.ones(1)[0]):
        scheduler.step(metric)
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert_plain(scheduler.state_dict())
    assert_plain(optimizer.param_groups[0])
    other = ReduceLROnPlateau(make_optimizer())
    other.load_state_dict({**scheduler.state_dict(), "factor": np.float64(0.5), "min_lrs": [np.float64(0.1)]})
    assert type(other.factor) is float
    assert type(other.min_lrs[0]) is float


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, tuple, list])
def test_any_list_of_lower_bounds(make: Any) -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(groups=2), min_lr=make([0.25, 0.5]))
    assert scheduler.min_lrs == [0.25, 0.5]
    assert {type(one) for one in scheduler.min_lrs} == {float}


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("kind", [*KINDS_OF_NUMBERS])
@pytest.mark.parametrize("name", ["SGD", "torch.Adam"])
def test_cyclic_keeps_and_writes_pythons_numbers(kind: str, name: str, mode: Any) -> None:
    number = KINDS_OF_NUMBERS[kind]
    whole = {"a tensor": torch.tensor, "an array": np.asarray}.get(kind, np.int64)
    optimizer, plainly = make_optimizer(name), make_optimizer(name)
    scheduler = CyclicLR(
        optimizer,
        number(0.125),
        number(0.5),
        step_size_up=whole(3),
        step_size_down=number(2.0),
        mode=mode,
        gamma=number(0.5),
        base_momentum=number(0.75),
        max_momentum=number(0.875),
        last_epoch=np.int64(-1),  # type: ignore[arg-type]
    )
    same = CyclicLR(plainly, 0.125, 0.5, 3, 2, mode, 0.5, base_momentum=0.75, max_momentum=0.875)  # type: ignore[arg-type]
    for _ in range(7):
        step_as_trained(scheduler)
        step_as_trained(same)
        assert_same_rates(optimizer, plainly)
        assert_plain(optimizer.param_groups[0])
        assert_plain(scheduler.state_dict())


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, tuple, list])
def test_any_list_of_bounds(make: Any) -> None:
    optimizer, plainly = make_optimizer(groups=2), make_optimizer(groups=2)
    scheduler = CyclicLR(optimizer, make([0.125, 0.25]), make([0.5, 1.0]), 3, base_momentum=make([0.5, 0.75]))
    same = CyclicLR(plainly, [0.125, 0.25], [0.5, 1.0], 3, base_momentum=[0.5, 0.75])
    for _ in range(4):
        step_as_trained(scheduler)
        step_as_trained(same)
        assert_same_rates(optimizer, plainly)
    assert_plain(scheduler.state_dict())
    with pytest.raises(ValueError, match="base_lr must have the same length"):
        CyclicLR(make_optimizer(), make([0.1, 0.2]), 1.0)


def test_what_a_user_puts_into_a_running_scheduler() -> None:
    """Bounds of a new group, a ``get_lr`` or a scale that calculates with numpy."""

    class Capped(CyclicLR):
        def get_lr(self) -> list[Any]:
            return [np.minimum(lr, 0.3) for lr in super().get_lr()]

    scheduler = Capped(make_optimizer(), [0.1], [1.0], 2, scale_fn=lambda x: np.float64(0.5))
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    scheduler.base_lrs.append(np.float64(0.1))
    scheduler.max_lrs.append(np.float64(1.0))
    scheduler.base_momentums.append(np.float64(0.5))
    scheduler.max_momentums.append(np.float64(0.75))
    step_as_trained(scheduler)
    for group in scheduler.optimizer.param_groups:
        assert_plain(group)
    with pytest.warns(UserWarning, match="is a function"):
        assert_plain(scheduler.state_dict())


def test_a_number_in_an_old_checkpoint() -> None:
    state = CyclicLR(make_optimizer(), 0.1, 1.0, 2).state_dict()
    scheduler = CyclicLR(make_optimizer(), 0.1, 1.0, 2)
    scheduler.load_state_dict({**state, "total_size": np.float64(4.0), "_last_lr": [np.float64(0.1)]})
    step_as_trained(scheduler)
    assert_plain(scheduler.state_dict())
    assert_plain(scheduler.optimizer.param_groups[0])


@given(st.floats(allow_nan=False), st.integers(-(2**31), 2**31 - 1))
def test_plain(x: float, i: int) -> None:
    for value, expected in (
        (np.float64(x), x),
        (torch.tensor(x, dtype=torch.float64), x),
        (np.array([[x]]), None),
        (np.int32(i), i),
        (torch.tensor(i), i),
        (i, i),
        (Fraction(i, 2), i / 2),
        (np.bool_(True), True),
        ("rel", "rel"),
        (None, None),
    ):
        if isinstance(value, np.ndarray):
            assert plain(value) is value
        else:
            assert plain(value) == expected
            assert type(plain(value)) is type(expected)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "Adam" in name])
@pytest.mark.parametrize("shared", [[0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_a_tensor_that_some_of_three_groups_share_is_cycled_for_each(name: str, shared: list[int]) -> None:
    """Also where the last group, or one added later, has a number."""
    optimizer = make_optimizer(name, groups=3, lr=0.1)
    rate, betas = torch.tensor(0.1), (torch.tensor(0.9), torch.tensor(0.99))
    for i in shared:
        optimizer.param_groups[i].update(lr=rate, betas=betas)
    scheduler = CyclicLR(optimizer, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], 2, base_momentum=[0.5, 0.6, 0.7])
    for i in shared:  # as a checkpoint would that was loaded after us
        optimizer.param_groups[i].update(lr=rate, betas=betas)
    step_as_trained(scheduler)
    for i, group in enumerate(optimizer.param_groups):
        assert float(group["lr"]) == pytest.approx(0.55 * (i + 1))
        assert float(group["betas"][0]) == pytest.approx(0.7 + 0.05 * i)


def test_the_scale_has_torchs_private_name() -> None:
    """PyTorch's own tests look at it."""
    for mode, x in (("triangular", 3), ("triangular2", 3), ("exp_range", 5)):
        mine, theirs = (
            kind(make_optimizer(), 0.1, 1.0, mode=mode, gamma=0.5)
            for kind in (oc.CyclicLR, torch_schedulers.CyclicLR)
        )
        assert mine._scale_fn_ref(x) == theirs._scale_fn_ref(x) == mine.scale_fn(x)
        assert "_scale_fn_ref" not in mine.state_dict()
