"""ReduceLROnPlateau: what torch gets wrong, and what is right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import ReduceLROnPlateau

from .twins import floats, make_optimizer

TorchPlateau = torch_schedulers.ReduceLROnPlateau


def test_torch_accepts_a_factor_that_makes_rates_negative() -> None:
    optimizer = make_optimizer(lr=0.1)
    scheduler = TorchPlateau(optimizer, factor=-1, patience=0, min_lr=-1)
    for _ in range(2):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == -0.1
    with pytest.raises(ValueError, match="factor: -1"):
        ReduceLROnPlateau(optimizer, factor=-1, patience=0)


def test_relative_threshold_of_negative_metrics() -> None:
    """pytorch #47513: a loss that gets worse and worse, from -1.0 to -0.9, is no plateau to torch."""

    def lr_after(kind: Any, losses: list[float], **change: Any) -> float:
        optimizer = make_optimizer(lr=1.0)
        scheduler = kind(optimizer, patience=2, threshold=0.05, **change)
        for loss in losses:
            scheduler.step(loss)
        return float(optimizer.param_groups[0]["lr"])

    worse = [-1.0, -0.98, -0.96, -0.94, -0.92, -0.9]
    assert lr_after(TorchPlateau, worse) == lr_after(ReduceLROnPlateau, worse) == 1.0
    assert lr_after(ReduceLROnPlateau, worse, threshold_mode="rel_magnitude") < 1.0
    better = [-1.0, -1.1, -1.25, -1.4, -1.6, -1.8]
    assert lr_after(ReduceLROnPlateau, better, threshold_mode="rel_magnitude") == 1.0


@given(st.lists(st.floats(1e-6, 1e6), max_size=20), st.sampled_from(["min", "max"]), st.booleans())
@settings(max_examples=100)
def test_magnitude_is_torchs_threshold_above_zero_and_its_mirror_image_below(
    losses: list[float], mode: str, mirrored: bool
) -> None:
    other = {"min": "max", "max": "min"}[mode]
    magnitude = ReduceLROnPlateau(
        make_optimizer(lr=1.0),
        other if mirrored else mode,
        patience=1,
        threshold=0.25,  # a power of two: both ways to compute the bar round alike
        threshold_mode="rel_magnitude",
    )
    relative = TorchPlateau(make_optimizer(lr=1.0), mode, patience=1, threshold=0.25)
    for loss in losses:
        magnitude.step(-loss if mirrored else loss)
        relative.step(loss)
        assert abs(magnitude.best) == abs(relative.best)
        assert magnitude.num_bad_epochs == relative.num_bad_epochs
        assert magnitude.get_last_lr() == relative.get_last_lr()


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf, 0.0])
def test_magnitude_takes_the_first_finite_metric(first: float) -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(), threshold_mode="rel_magnitude")
    scheduler.step(first)
    scheduler.step(-5.0)
    assert scheduler.best == (-math.inf if first == -math.inf else -5.0)
    assert scheduler.num_bad_epochs == (1 if first == -math.inf else 0)


@pytest.mark.parametrize("name", ["SGD", "torch.SGD"])
def test_a_group_added_later_is_reduced_too(name: str) -> None:
    """pytorch #20997 and #62475."""
    optimizer = make_optimizer(name, lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=0, min_lr=0.05)
    scheduler.step(1.0)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.2})
    for _ in range(3):
        scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.05, 0.05]


def test_a_group_added_later_to_a_list_of_bounds_is_torchs_error_and_loses_no_reduction() -> None:
    messages = []
    for kind in (TorchPlateau, ReduceLROnPlateau):
        optimizer = make_optimizer(lr=1.0)
        scheduler = kind(optimizer, patience=0, min_lr=[0.5])
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
        scheduler.step(1.0)
        before = scheduler.state_dict()
        with pytest.raises(RuntimeError, match="number of param groups") as caught:
            scheduler.step(1.0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert scheduler.state_dict() == before
    scheduler.min_lrs.append(0.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.5, 0.1]


def test_bounds_that_a_user_changed_survive_a_new_group() -> None:
    optimizer = make_optimizer(lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    scheduler.min_lrs[0] = 0.7
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.7, 0.1]


def test_one_tensor_rate_for_all_groups_is_reduced_once() -> None:
    def reduced(kind: Any) -> list[float]:
        optimizer = make_optimizer("torch.Adam", groups=3, lr=torch.tensor(1.0))
        scheduler = kind(optimizer, patience=0, factor=0.5, min_lr=[0.0, 0.75, 0.0])
        scheduler.step(1.0)
        scheduler.step(1.0)
        return floats(scheduler.get_last_lr())

    assert reduced(TorchPlateau) == [0.25] * 3  # the second group has gone below its bound
    assert reduced(ReduceLROnPlateau) == [0.5, 0.75, 0.5]


def test_a_tensor_that_some_of_the_groups_share_is_reduced_once() -> None:
    optimizer = make_optimizer("torch.Adam", groups=3, lr=torch.tensor(1.0))
    optimizer.param_groups[2]["lr"] = 1.0
    scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.5] * 3


def test_takes_the_last_epoch_that_some_hosts_give_to_every_scheduler() -> None:
    """skorch does, unless the class is torch's own."""
    assert ReduceLROnPlateau(make_optimizer(), last_epoch=-1).last_epoch == 0
    assert ReduceLROnPlateau(make_optimizer(), last_epoch=4).last_epoch == 5


def test_a_tensor_rate_is_changed_in_place() -> None:
    rate = torch.tensor(0.5)
    scheduler = ReduceLROnPlateau(make_optimizer("Adam", lr=rate), patience=0)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert scheduler.optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)
    (last,) = scheduler.get_last_lr()
    assert last is not rate


def test_has_the_counter_that_accelerate_counts_up() -> None:
    with pytest.raises(AttributeError):
        TorchPlateau(make_optimizer())._step_count += 1
    scheduler = ReduceLROnPlateau(make_optimizer())
    scheduler._step_count += 1
    TorchPlateau(make_optimizer()).load_state_dict(scheduler.state_dict())
