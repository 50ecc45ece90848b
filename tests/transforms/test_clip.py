"""Clipping: what torch.nn.utils does to gradients before an optimizer of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import torchopt_course as oc
from torchopt_course.transforms import clip_norm, clip_value

from ..helpers import NAMES, assert_same, every_engine, ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix", "scalar", "empty", "channels_last", "large"]


def each_by_itself(params: Any, max_norm: float) -> None:
    for param in params:
        clip_grad_norm_([param], max_norm)


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_values_and_norms_are_torchs(name: str, engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    transforms = [clip_value(0.8), clip_norm(1.5)]
    optimizer = ours(name)(mine, lr=0.05, transforms=transforms, **engine)
    other = theirs(name)(reference, lr=0.05)
    for step in range(4):
        set_gradients(step, mine, reference)
        clip_grad_value_(reference, 0.8)
        each_by_itself(reference, 1.5)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)


@every_engine
def test_first_listed_acts_first(engine: dict[str, Any]) -> None:
    for transforms, order in (
        ([clip_value(0.5), clip_norm(1.0)], "value, norm"),
        ([clip_norm(1.0), clip_value(0.5)], "norm, value"),
    ):
        mine, reference = parameters(["large"], torch.float64), parameters(["large"], torch.float64)
        set_gradients(0, mine, reference, scale=100)
        for kind in order.split(", "):
            if kind == "value":
                clip_grad_value_(reference, 0.5)
            else:
                clip_grad_norm_(reference, 1.0)
        oc.SGD(mine, lr=1.0, transforms=transforms, **engine).step()
        torch.optim.SGD(reference, lr=1.0).step()
        torch.testing.assert_close(mine[0], reference[0], rtol=1e-12, atol=1e-12)


@every_engine
def test_an_infinite_bound_clips_nothing(engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS), parameters(KINDS)
    groups = [{"params": mine[:3], "max_norm": torch.inf, "clip_value": torch.inf}, {"params": mine[3:]}]
    optimizer = oc.Adam(groups, transforms=[clip_value(0.1), clip_norm(0.2)], **engine)
    other = oc.Adam(reference, **engine)
    set_gradients(0, mine, reference)
    clip_grad_value_(reference[3:], 0.1)
    each_by_itself(reference[3:], 0.2)
    optimizer.step()
    other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-8)
    assert torch.equal(mine[0], reference[0])


def test_gradients_stay_as_they_are() -> None:
    params = parameters(KINDS)
    set_gradients(0, params)
    before = [param.grad.clone() for param in params]
    oc.SGD(params, transforms=[clip_value(0.1), clip_norm(0.1)]).step()
    assert all(torch.equal(param.grad, grad) for param, grad in zip(params, before, strict=True))


@pytest.mark.parametrize("bad", [-1.0, torch.nan, "1", None])
@pytest.mark.parametrize("transform", [clip_value, clip_norm])
def test_a_bound_that_is_none_is_refused(transform: Any, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"(clip_value|max_norm).*expected"):
        oc.SGD(parameters(["vector"]), transforms=[transform(bad)])
