"""The LR range test raises the rate with each step of the optimizer, and trains in training mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc
from torchopt_course import lr_range_test
from torchopt_course.lr_scheduler import RangeTest
from torchopt_course.lr_scheduler.range_test import set_to_training

from .ranges import NOTHING
from .twins import OPTIMIZERS, make_optimizer

RATES = [1e-3, 1e-2, 1e-1, 1.0]


def accumulating(every: int, **options: Any) -> tuple[RangeTest, list[float]]:
    """A step that steps the optimizer every so many batches; batch i has the loss i, and an accuracy."""
    optimizer = make_optimizer()
    calls, used = 0, []

    def step(batch: int) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        return float(batch), batch / 100

    found = lr_range_test(
        step, range(100), NOTHING, optimizer, start_lr=1e-3, end_lr=1.0, iterations=4, **options
    )
    return found, used


@pytest.mark.parametrize("every", [1, 2, 3, 4, 7, 20])
def test_gradient_accumulation_raises_the_rate_with_each_step_and_averages_the_losses(every: int) -> None:
    found, used = accumulating(every)
    assert found.lrs == pytest.approx(RATES)
    if every <= 4:  # otherwise all four iterations are over before the first step
        means = [every * i + (every - 1) / 2 for i in range(4)]
        assert found.losses == pytest.approx(means)
        assert found.accuracies == pytest.approx([mean / 100 for mean in means])
        assert used[1:] == pytest.approx(RATES[1:])


def test_the_first_step_is_made_with_the_first_rate() -> None:
    """Nobody can know before it that gradients are being accumulated; batches until then raise the rate."""
    optimizer = make_optimizer(lr=0.5)
    start = optimizer.param_groups[0]["params"][0].detach().clone()
    calls, moved = 0, []

    def step(batch: int) -> float:
        nonlocal calls
        calls += 1
        param = optimizer.param_groups[0]["params"][0]
        param.grad = torch.ones_like(param)
        if calls % 3 == 0:
            before = param.detach().clone()
            optimizer.step()
            moved.append((before - param.detach())[0].item())
        return 1.0

    lr_range_test(step, [0], NOTHING, optimizer, start_lr=1e-3, end_lr=1.0, iterations=4)
    assert moved == pytest.approx(RATES, rel=1e-4)
    assert torch.equal(optimizer.param_groups[0]["params"][0].detach(), start)


def test_an_iterator_that_ends_between_two_steps() -> None:
    optimizer = make_optimizer()
    calls = 0

    def step(batch: int) -> float:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            optimizer.step()
        return float(batch)

    found = lr_range_test(step, iter(range(7)), NOTHING, optimizer)
    assert found.losses == [0.5, 2.5, 4.5]  # the last batch's gradients were never used
    assert found.stopped == "after 3 of 300 iterations, with the batches"


def test_steps_that_are_left_out_do_not_raise_the_rate() -> None:
    """A GradScaler leaves out the first ones, until its scale is low enough."""
    model = nn.Linear(2, 1)
    optimizer = oc.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    tried = []

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        scaler.scale(loss).backward()
        tried.append(optimizer.param_groups[0]["lr"])
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = lr_range_test(
        step,
        [torch.full((4, 2), 100.0)],
        model,
        optimizer,
        start_lr=1e-9,
        end_lr=1e-6,
        iterations=20,
        also=[scaler],
    )
    assert len(found.lrs) == 20
    assert len(tried) > 20
    assert scaler.get_scale() == 2.0**127


def test_a_test_that_makes_no_more_steps_ends() -> None:
    """Where gradients overflow, many a training loop steps no longer, and its loss stays where it is."""
    optimizer = make_optimizer()

    def step(batch: int) -> float:
        if optimizer.param_groups[0]["lr"] < 0.1:
            optimizer.step()
        return 1.0

    found = lr_range_test(step, [0], NOTHING, optimizer)
    assert found.lrs[-1] < 0.1
    assert "11 batches led to no step" in found.stopped


class Wrapper(torch.optim.Optimizer):
    """As Accelerate's: is an Optimizer, but calls none of its code."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    def step(self, closure: Any = None) -> None:
        self.optimizer.step(closure)


@pytest.mark.parametrize("name", [*OPTIMIZERS])
@pytest.mark.parametrize("handed_over", ["the optimizer", "its wrapper"])
def test_steps_are_seen_through_a_wrapper(name: str, handed_over: str) -> None:
    optimizer = make_optimizer(name)
    wrapper = Wrapper(optimizer)
    other = make_optimizer()  # somebody else's steps do not count
    calls = 0

    def step(batch: int) -> float:
        nonlocal calls
        calls += 1
        other.step()
        if calls % 2 == 0:
            wrapper.step()
        return float(batch)

    found = lr_range_test(
        step, range(20), NOTHING, wrapper if handed_over == "its wrapper" else optimizer, iterations=4
    )
    assert found.losses == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("kind", [oc.SGD, torch.optim.SGD])
def test_steps_of_a_compiled_optimizer_are_seen_and_it_is_not_compiled_each_time(kind: Any) -> None:
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    param = nn.Parameter(torch.ones(3))
    optimizer = kind([param], lr=torch.tensor(0.1))
    compiled = torch.compile(optimizer.step, backend=counter)
    calls = 0

    def step(batch: int) -> float:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            param.grad = torch.ones(3)
            compiled()
        return float(batch)

    step(0)
    step(0)
    found = lr_range_test(step, range(40), NOTHING, optimizer, iterations=20)
    assert found.losses == [2 * i + 0.5 for i in range(20)]
    assert counter.frame_count <= 3


def test_no_hook_is_left_behind() -> None:
    from torch.optim import optimizer as torch_optimizer

    def hooks() -> tuple[int, int]:
        return (
            len(torch_optimizer._global_optimizer_pre_hooks),
            len(torch_optimizer._global_optimizer_post_hooks),
        )

    def fail(batch: int) -> float:
        raise RuntimeError("no")

    before = hooks()
    accumulating(2)
    with pytest.raises(RuntimeError, match="no"):
        lr_range_test(fail, [0], NOTHING, make_optimizer())
    assert hooks() == before


# ---------------------------------------------------------------- training mode


def modes(model: nn.Module) -> str:
    return "".join("t" if module.training else "e" for module in model.modules())


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def frozen_norm() -> nn.Module:
    model = net()
    model[1].eval()
    return model


@pytest.mark.parametrize(
    ("model", "tested"),
    [
        (net(), "ttt"),
        (net().eval(), "ttt"),
        (frozen_norm(), "tte"),
        (nn.Linear(2, 2).eval(), "t"),
        (nn.Linear(2, 2), "t"),
        (nn.ModuleList([net().eval(), net()]), "ttttttt"),
        (nn.ModuleList([net().eval(), frozen_norm()]), "tttttte"),
        (nn.ModuleDict({"a": frozen_norm(), "b": net().eval()}), "tttettt"),
        (torch.optim.swa_utils.AveragedModel(net().eval()), "tttt"),
        (nn.Sequential(net().eval()), "tttt"),  # a new wrapper of an evaluated model
    ],
)
def test_what_was_left_in_evaluation_mode_is_tested_in_training_mode(model: nn.Module, tested: str) -> None:
    before = modes(model)
    seen = set()

    def step(batch: int) -> float:
        seen.add(modes(model))
        return 1.0

    lr_range_test(step, [0], model, make_optimizer(), iterations=3)
    assert seen == {tested}
    assert modes(model) == before


def test_a_models_own_train_is_called() -> None:
    """It may keep its norms frozen."""

    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self[0].eval()
            return self

    model = Frozen(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    set_to_training(model)
    assert modes(model) == "tet"
