"""Cautious updates: the authors' loop, written from the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import torchopt_course as oc
from torchopt_course.transforms import cautious, decoupled_decay

from ..helpers import every_engine, parameters, set_gradients

KINDS = ["vector", "matrix", "scalar", "channels_last", "large"]


def cautious_adamw(params: list[Tensor], states: list[Any], step: int, lr: float, decay: float) -> None:
    """Algorithm 1 of the paper for Adam, the mask scaled as in the authors' program."""
    for param, state in zip(params, states, strict=True):
        g, (m, v) = param.grad, state
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g * g)
        mask = (m * g > 0).to(g.dtype)
        mask /= mask.mean().clamp(min=1e-3)
        update = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        with torch.no_grad():
            param.mul_(1 - lr * decay).sub_(lr * update * mask)


@every_engine
@pytest.mark.parametrize("how", ["AdamW", "Adam with decoupled_decay"])
def test_it_is_the_authors(engine: dict[str, Any], how: str) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    if how == "AdamW":
        optimizer = oc.AdamW(mine, lr=0.05, weight_decay=0.1, transforms=[cautious()], **engine)
    else:
        optimizer = oc.Adam(mine, lr=0.05, transforms=[cautious(), decoupled_decay(0.1)], **engine)
    states = [(torch.zeros_like(param), torch.zeros_like(param)) for param in reference]
    for step in range(1, 7):
        set_gradients(step, mine, reference)
        optimizer.step()
        cautious_adamw(reference, states, step, 0.05, 0.1)
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-10)


@every_engine
def test_nothing_agrees_and_nothing_moves(engine: dict[str, Any]) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = oc.Momentum([param], lr=0.1, transforms=[cautious()], **engine)
    for grad in (torch.ones(3), torch.full((3,), -0.1)):
        before = param.detach().clone()
        param.grad = grad
        optimizer.step()
    assert torch.equal(param, before)  # the velocity still goes against the gradient


@every_engine
def test_a_group_may_go_without(engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS), parameters(KINDS)
    groups = [{"params": mine[:2], "cautious": False}, {"params": mine[2:]}]
    optimizer = oc.Momentum(groups, lr=0.1, transforms=[cautious()], **engine)
    other = oc.Momentum(reference, lr=0.1, **engine)
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert all(torch.equal(param, twin) for param, twin in zip(mine[:2], reference[:2], strict=True))
    assert not torch.equal(mine[-1], reference[-1])
