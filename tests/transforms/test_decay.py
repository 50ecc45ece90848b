"""Decoupled decay, and the groups of those that decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc
from torchopt_course.transforms import decay_groups, decoupled_decay

from ..helpers import every_engine, parameters, set_gradients

KINDS = ["vector", "matrix", "scalar", "channels_last"]


@every_engine
def test_adam_with_it_is_adamw(engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = oc.Adam(mine, lr=0.05, transforms=[decoupled_decay(0.1)], **engine)
    other = torch.optim.AdamW(reference, lr=0.05, weight_decay=0.1)
    for step in range(4):
        set_gradients(step, mine, reference)
        if step == 2:
            for each in (optimizer, other):
                each.param_groups[0]["lr"] = 0.02
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-11, atol=1e-11)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize("option", ["weight_decay", "decoupled_decay"])
def test_biases_norms_and_names_do_not_decay(option: str) -> None:
    model = network()
    groups = decay_groups(model, 0.5, no_decay=["0.*"], option=option)
    names = [[name for name, _ in group["params"]] for group in groups]
    assert names == [["1.weight", "3.weight"], ["0.weight", "1.bias", "2.weight", "2.bias", "3.bias"]]
    transforms = [decoupled_decay(0.9)] if option == "decoupled_decay" else []
    weight_decay = 0.0 if option == "decoupled_decay" else 0.9
    optimizer = oc.AdamW(groups, lr=1.0, weight_decay=weight_decay, transforms=transforms)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    for name, param in model.named_parameters():
        torch.testing.assert_close(param, before[name] * (0.5 if name in names[0] else 1.0))


def test_a_function_may_decide() -> None:
    groups = decay_groups(network(), 0.5, no_decay=lambda name, param: param.numel() < 10)
    assert [name for name, _ in groups[0]["params"]] == ["0.weight", "1.weight"]


def test_groups_are_torchs_and_empty_ones_are_left_out() -> None:
    model = nn.Linear(3, 2, bias=False)
    assert [len(group["params"]) for group in decay_groups(model.named_parameters(), 0.1)] == [1]
    assert [group["weight_decay"] for group in decay_groups(network(), 0.0)] == [0.0]
    torch.optim.AdamW(decay_groups(network(), 0.1))


def test_what_names_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameter is called 'norm\.\*'; they are called 0\.weight"):
        decay_groups(network(), 0.1, no_decay="norm.*")
    with pytest.raises(TypeError, match="parameter 0 has no name"):
        decay_groups(network().parameters(), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_decay"):
        decay_groups(network(), -0.1)
    with pytest.raises(ValueError, match="no parameters"):
        decay_groups(nn.Tanh(), 0.1)
