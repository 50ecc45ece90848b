"""The average of the weights: torch's AveragedModel; and back again, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import torchopt_course as oc
from torchopt_course.transforms import ema

from ..helpers import every_engine, parameters, set_gradients


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    model.zero_grad()
    model(torch.randn(6, 4, generator=generator)).square().sum().backward()


@every_engine
def test_it_is_torchs(engine: dict[str, Any]) -> None:
    model = network()
    plain = copy.deepcopy(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    optimizer = oc.AdamW(model.parameters(), lr=0.05, transforms=[ema(0.8)], **engine)
    other = oc.AdamW(plain.parameters(), lr=0.05, **engine)
    for step in range(5):
        for each in (model, plain):
            backward(each, step)
        optimizer.step()
        other.step()
        average.update_parameters(model)
        for param, mean, twin in zip(
            model.parameters(), average.module.parameters(), plain.parameters(), strict=True
        ):
            torch.testing.assert_close(optimizer.state[param]["ema"], mean.detach(), rtol=2e-6, atol=2e-7)
            assert torch.equal(param, twin)  # the weights go as without it
    inputs = torch.ones(2, 4)
    with oc.averaged_weights(optimizer):
        torch.testing.assert_close(model(inputs), average(inputs), rtol=2e-6, atol=2e-6)


def trained(**options: Any) -> tuple[nn.Module, Any]:
    model = network()
    optimizer = oc.Adam(model.parameters(), lr=0.05, transforms=[ema(0.5)], **options)
    for step in range(3):
        backward(model, step)
        optimizer.step()
    return model, optimizer


def test_weights_come_back_bit_for_bit_also_after_an_error() -> None:
    model, optimizer = trained(state_dtype={"ema": torch.bfloat16})
    before = copy.deepcopy(model.state_dict())
    states = copy.deepcopy(optimizer.state_dict())

    def evaluate() -> None:
        with oc.averaged_weights(optimizer):
            assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
            model[0].weight.detach().fill_(7)
            for key, own in optimizer.state_dict()["state"].items():  # what is saved meanwhile is the average
                assert torch.equal(own["ema"], states["state"][key]["ema"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(
        torch.equal(own["ema"], states["state"][key]["ema"])
        for key, own in optimizer.state_dict()["state"].items()
    )


def test_steps_are_refused_meanwhile_and_go_on_afterwards() -> None:
    model, optimizer = trained()
    twin, other = trained()
    with oc.averaged_weights(optimizer):
        with pytest.raises(RuntimeError, match="replaced by their averages"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="replaced by their averages"):
            optimizer.load_state_dict(optimizer.state_dict())
        with pytest.raises(RuntimeError, match="replaced"), oc.averaged_weights(optimizer):
            pass
    for each, own in ((model, optimizer), (twin, other)):
        backward(each, 9)
        own.step()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_released_gradients_are_refused_meanwhile() -> None:
    model, optimizer = trained()
    released = oc.release_gradients(model, optimizer)
    with oc.averaged_weights(optimizer), pytest.raises(RuntimeError, match="replaced by their averages"):
        backward(model, 0)
    released.remove()


def test_it_survives_a_checkpoint() -> None:
    model, optimizer = trained()
    twin = network()
    twin.load_state_dict(model.state_dict())
    other = oc.Adam(twin.parameters(), lr=0.05, transforms=[ema(0.5)])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with oc.averaged_weights(optimizer), oc.averaged_weights(other):
        assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_parameters_without_an_average_stay() -> None:
    params = parameters(["vector", "matrix", "scalar"])
    groups = [{"params": params[:1], "ema_decay": 0.0}, {"params": params[1:]}]
    optimizer = oc.Adam(groups, transforms=[ema()])
    with oc.averaged_weights(optimizer):  # nothing has been averaged yet
        pass
    set_gradients(0, params[:2])
    optimizer.step()
    before = [param.detach().clone() for param in params]
    set_gradients(1, params[:2])
    optimizer.step()
    now = [param.detach().clone() for param in params]
    with oc.averaged_weights(optimizer):
        assert torch.equal(params[0], now[0])
        torch.testing.assert_close(params[1], 0.999 * before[1] + 0.001 * now[1])
        assert torch.equal(params[2], now[2])


def test_an_average_of_long_ago_is_none() -> None:
    param = nn.Parameter(torch.zeros(1))
    optimizer = oc.SGD([param], lr=1.0, transforms=[ema(0.5)])
    for decay in (0.5, 0.5, 0.0, 0.0, 0.0):
        optimizer.param_groups[0]["ema_decay"] = decay
        param.grad = -torch.ones(1)
        optimizer.step()
    with oc.averaged_weights(optimizer):
        assert param.item() == 5.0
    optimizer.param_groups[0]["ema_decay"] = 0.5
    optimizer.step()
    assert optimizer.state[param]["ema"].item() == 5.5


def test_who_keeps_none_is_told() -> None:
    params = parameters(["vector"])
    told = pytest.raises(ValueError, match=r"Adam keeps no average .* transforms=\[ema\(\)\]")
    with told, oc.averaged_weights(oc.Adam(params)):
        pass
    told_of_torchs = pytest.raises(TypeError, match="must be one of torchopt_course")
    with told_of_torchs, oc.averaged_weights(torch.optim.Adam(params)):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="ema_decay"):
        oc.Adam(params, transforms=[ema(1.0)])


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"state_dtype": "8bit"}, 1 / 12),  # a sixteenth in each step, and a fifth of the one before
        ({"state_dtype": torch.bfloat16, "rounding": "kahan"}, 2**-13),
    ],
    ids=str,
)
def test_it_is_read_as_it_is_stored(options: dict[str, Any], share: float) -> None:
    """In 8 bits there is no state of that name, and Kahan's rest belongs to it."""
    torch.manual_seed(0)
    model = nn.Linear(70, 60, bias=False)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.2))
    optimizer = oc.SGD(model.parameters(), lr=0.5, transforms=[ema(0.2)], **options)
    for step in range(4):
        model.weight.grad = torch.randn(60, 70, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        average.update_parameters(model)
    with oc.averaged_weights(optimizer):
        torch.testing.assert_close(model.weight, average.module.weight, rtol=share, atol=share)
