"""Gradient centralization: the paper's formula, before everything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_value_

import torchopt_course as oc
from torchopt_course.transforms import centralize, clip_value, skip_nonfinite

from ..helpers import NAMES, assert_same, every_engine, ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix", "transposed", "scalar", "empty", "channels_last"]


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_papers(name: str, engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    groups = [{"params": mine[:4]}, {"params": mine[4:], "centralize": False}]
    optimizer = ours(name)(
        groups, lr=0.05, transforms=[skip_nonfinite(), centralize(), clip_value(0.6)], **engine
    )
    other = theirs(name)(reference, lr=0.05)
    for step in range(4):
        set_gradients(step, mine, reference)
        before = [param.grad.clone() for param in mine]
        for param in (reference[1], reference[2]):
            param.grad -= param.grad.mean(dim=1, keepdim=True)
        clip_grad_value_(reference, 0.6)
        optimizer.step()
        other.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(mine, before, strict=True))
    assert_same(mine, reference, optimizer, other)


def test_sparse_gradients_and_scaled_ones() -> None:
    param = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = oc.SGD([param], lr=1.0, transforms=[centralize()])
    param.grad = torch.sparse_coo_tensor([[1]], [[1.0, 3.0]], (3, 2))
    optimizer.step()
    assert param.tolist() == [[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]]

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = oc.SGD([param], lr=1.0, fused=True, transforms=[centralize()])
    optimizer.zero_grad()
    scaler.scale((param * torch.tensor([1.0, 3.0])).sum()).backward()
    scaler.step(optimizer)
    assert param.tolist() == [[1.0, -1.0], [2.0, -2.0], [1.0, -1.0]]


def test_it_is_listed_first() -> None:
    with pytest.raises(TypeError, match="clip_value is listed before centralize"):
        oc.SGD(parameters(["vector"]), transforms=[clip_value(1.0), centralize()])
