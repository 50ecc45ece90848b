"""CyclicLR: what torch gets wrong in the middle of a schedule, and what is right."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import CyclicLR

from .twins import floats, make_optimizer, rates, step_as_trained

TorchCyclic = torch_schedulers.CyclicLR


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
