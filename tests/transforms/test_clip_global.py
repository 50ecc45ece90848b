"""Clipping by the norm of all gradients: torch.nn.utils.clip_grad_norm_ before an optimizer of torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import torchopt_course as oc
from torchopt_course.testing import optimizer_checks
from torchopt_course.transforms import cautious, clip_global_norm, clip_value, ema, skip_nonfinite

from ..helpers import NAMES, assert_same, every_engine, ours, parameters, set_gradients, theirs
from .test_optimizers_with_them import Rows

KINDS = ["vector", "matrix", "scalar", "empty", "channels_last", "large"]


def in_two_groups(params: list[Any]) -> list[dict[str, Any]]:
    return [{"params": params[:2], "lr": 0.1}, {"params": params[2:]}]


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_it_is_torchs(name: str, engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = ours(name)(in_two_groups(mine), lr=0.05, transforms=[clip_global_norm(2.0)], **engine)
    other = theirs(name)(in_two_groups(reference), lr=0.05)
    for step in range(4):
        set_gradients(step, mine, reference, scale=0.001 if step == 2 else 1.0)  # short ones stay
        if step == 1:
            mine[1].grad = reference[1].grad = None
        clip_grad_norm_(reference, 2.0)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)


@every_engine
def test_each_group_has_a_bound_and_all_have_one_norm(engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    groups = in_two_groups(mine)
    groups[0]["max_global_norm"] = torch.inf
    optimizer = oc.SGD(groups, lr=0.05, transforms=[clip_value(1.5), clip_global_norm(0.1)], **engine)
    set_gradients(0, mine, reference)
    for param in reference:
        param.grad.clamp_(-1.5, 1.5)
    norm = torch.cat([param.grad.flatten() for param in reference]).norm()
    before = [param.detach().clone() for param in reference]
    optimizer.step()
    for i, (param, old, twin) in enumerate(zip(mine, before, reference, strict=True)):
        expected = old - (0.1 if i < 2 else 0.05) * twin.grad * (1 if i < 2 else 0.1 / (norm + 1e-6))
        torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-12)


@every_engine
def test_with_others_and_after_a_step_that_is_skipped(engine: dict[str, Any]) -> None:
    def make(params: Any) -> Any:
        transforms = [skip_nonfinite(), clip_global_norm(0.5), cautious(), ema(0.9)]
        return oc.Adam(params, transforms=transforms, **engine)

    mine, reference = parameters(KINDS), parameters(KINDS)
    optimizer, other = make(mine), make(reference)
    for step in range(4):
        set_gradients(step, mine, reference)
        if step == 2:
            mine[3 - 2].grad[0, 0] = torch.inf
            optimizer.step()
            continue
        optimizer.step()
        other.step()
    assert all(map(torch.equal, mine, reference))
    twins, third = copy.deepcopy((mine, optimizer))
    for step in range(4, 6):
        set_gradients(step, mine, twins)
        optimizer.step()
        third.step()
    assert all(map(torch.equal, mine, twins))


def test_a_norm_that_is_not_finite_spoils_the_step_as_torchs_does() -> None:
    mine, reference = parameters(["vector", "matrix"]), parameters(["vector", "matrix"])
    set_gradients(0, mine, reference)
    mine[0].grad[2] = reference[0].grad[2] = torch.inf
    clip_grad_norm_(reference, 1.0)
    oc.SGD(mine, lr=0.1, transforms=[clip_global_norm(1.0)]).step()
    torch.optim.SGD(reference, lr=0.1).step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, equal_nan=True)


def test_what_sees_a_part_alone_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    transforms = [clip_global_norm(1.0)]
    with pytest.raises(RuntimeError, match="several tensors"):
        oc.release_gradients(model, oc.SGD(model.parameters(), transforms=transforms))
    params = parameters(["matrix"])
    set_gradients(0, params)
    with pytest.raises(TypeError, match="several tensors"):
        Rows(params, transforms=transforms).step()
    with pytest.raises(ValueError, match="max_global_norm"):
        oc.SGD(params, transforms=[clip_global_norm(-1.0)])


@pytest.mark.slow
def test_the_kit_agrees() -> None:
    checks = optimizer_checks(
        lambda params: oc.Adam(params, lr=0.05, transforms=[clip_global_norm(1.0)]), steps=5, coupled=True
    )
    names = {"descends", "every state moves", "checkpoint", "deep copy", "engines agree", "layouts"}
    chosen = [check for check in checks if check.name in names]
    assert {check.name for check in chosen} == names
    for check in chosen:
        check()
