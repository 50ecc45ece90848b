"""Stepping during the backward pass: the same numbers as after it, gradients freed as they come."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc
from torchopt_course.release import release_gradients

from ..helpers import NAMES, ours


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def train(model: nn.Module, optimizer: Any, scheduler: Any = None, steps: int = 6) -> None:
    """The usual loop, the same with released gradients."""
    for step in range(steps):
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()


def scheduler_of(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)


@pytest.mark.parametrize("engine", [{}, {"fused": False}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers_as_after_the_backward_pass(name: str, engine: dict[str, bool]) -> None:
    model, twin = network(), network()
    optimizer, other = (ours(name)(m.parameters(), lr=0.05, **engine) for m in (model, twin))
    released = release_gradients(model, optimizer)
    train(model, optimizer, scheduler_of(optimizer))
    train(twin, other, scheduler_of(other))
    for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.equal(expected)
        assert param.grad is None
        for key, value in other.state[expected].items():
            assert optimizer.state[param][key].equal(value), key
    released.remove()
    train(model, optimizer)
    train(twin, other)
    for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.equal(expected), "after the hooks are gone"


def test_never_more_than_one_gradient() -> None:
    model = network()
    optimizer = oc.Adam(model.parameters())
    release_gradients(model, optimizer)
    most = []
    for param in model.parameters():
        # Called after ours.
        param.register_post_accumulate_grad_hook(
            lambda _: most.append(sum(p.grad is not None for p in model.parameters()))
        )
    train(model, optimizer, steps=2)
    assert most == [0] * 12


def test_accumulation_steps_with_the_sum() -> None:
    model, twin = network(), network()
    optimizer, other = (oc.AdamW(m.parameters()) for m in (model, twin))
    released = release_gradients(model, optimizer)
    inputs = torch.randn(3, 5, 6)
    for _ in range(2):
        with released.accumulate():
            for part in inputs[:2]:
                model(part).square().mean().backward()
        assert all(param.grad is not None for param in model.parameters())
        model(inputs[2]).square().mean().backward()
        for part in inputs:
            twin(part).square().mean().backward()
        other.step()
        other.zero_grad()
    for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.equal(expected)


def test_groups_options_and_checkpoints() -> None:
    model, twin = network(), network()

    def optimizer_of(model: nn.Module) -> Any:
        first, *rest = model.parameters()
        groups = [{"params": [first], "lr": 0.1}, {"params": rest, "weight_decay": 0.1}]
        return oc.AdamW(groups, lr=0.01, state_dtype=torch.bfloat16)

    optimizer, other = optimizer_of(model), optimizer_of(twin)
    release_gradients(model, optimizer)
    for each, m in ((optimizer, model), (other, twin)):
        train(m, each, steps=2)
        each.param_groups[1]["lr"] = 0.02
        each.load_state_dict(copy.deepcopy(each.state_dict()))
        train(m, each, steps=2)
    for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.equal(expected)
        assert optimizer.state[param]["exp_avg"].dtype == torch.bfloat16


def test_chance_goes_on_after_a_checkpoint_and_differs_between_parameters() -> None:
    def built() -> tuple[nn.Module, Any]:
        model = network().bfloat16()
        for param in model.parameters():
            param.data.fill_(1.0)
        optimizer = oc.SGD(model.parameters(), lr=1e-3, rounding="stochastic")
        release_gradients(model, optimizer)
        return model, optimizer

    def backward(model: nn.Module) -> None:
        sum(param.sum() for param in model.parameters()).backward()  # type: ignore[union-attr]

    model, optimizer = built()
    for _ in range(3):
        backward(model)
    assert optimizer.param_groups[0]["rounding_step"] == 3
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    resumed, another = built()
    resumed.load_state_dict(saved[0])
    another.load_state_dict(saved[1])
    for each in (model, resumed):
        for _ in range(20):
            backward(each)
    for param, expected in zip(resumed.parameters(), model.parameters(), strict=True):
        assert param.equal(expected)
    biases = [param for param in model.parameters() if param.shape == (8,)]
    assert not biases[0].equal(biases[1])


def test_what_cannot_be_had_is_refused() -> None:
    model = network()
    optimizer = oc.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="must be one of torchopt_course, got SGD"):
        release_gradients(model, torch.optim.SGD(model.parameters()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got list"):
        release_gradients([model], optimizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 of the optimizer is not the model's"):
        release_gradients(network(), optimizer)
    with pytest.raises(RuntimeError, match="differentiable"):
        release_gradients(model, oc.SGD(model.parameters(), differentiable=True))
    with pytest.raises(RuntimeError, match="DataParallel changes gradients"):
        release_gradients(nn.DataParallel(model), optimizer)
    released = release_gradients(model, optimizer)
    with pytest.raises(RuntimeError, match="released already"):
        release_gradients(model, optimizer)
    released.remove()
    hook = optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="a hook before its step"):
        release_gradients(model, optimizer)
    hook.remove()
    release_gradients(model, optimizer).remove()

    class Own(oc.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    with pytest.raises(RuntimeError, match=r"Own.step is a method of its own"):
        release_gradients(model, Own(model.parameters()))


@pytest.mark.parametrize("fused", [None, True])
def test_a_scaler_is_refused(fused: bool | None) -> None:
    model = network()
    optimizer = oc.SGD(model.parameters(), lr=0.1, fused=fused)
    release_gradients(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(model(torch.ones(2, 6)).sum()).backward()
    with pytest.raises(RuntimeError, match="a GradScaler must see all gradients"):
        scaler.step(optimizer)
