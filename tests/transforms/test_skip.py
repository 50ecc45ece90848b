"""A step with a gradient that is not finite leaves everything as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import torchopt_course as oc
from torchopt_course.transforms import clip_norm, ema, skip_nonfinite

from ..helpers import NAMES, every_engine, ours, parameters, set_gradients

KINDS = ["vector", "matrix", "empty", "scalar"]


@every_engine
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_such_a_step_does_not_count(name: str, bad: float, engine: dict[str, Any]) -> None:
    mine, reference = parameters(KINDS), parameters(KINDS)
    transforms = [clip_norm(1.0), ema(0.9)]
    optimizer = ours(name)(mine, transforms=[skip_nonfinite(), *transforms], **engine)
    other = ours(name)(reference, transforms=transforms, **engine)
    for step in range(6):
        set_gradients(step, mine, reference)
        if step in (0, 3):
            mine[step % 2].grad.view(-1)[3] = bad
            before = [param.detach().clone() for param in mine], copy.deepcopy(optimizer.state_dict())
            optimizer.step()
            assert all(map(torch.equal, mine, before[0]))
            assert str(optimizer.state_dict()) == str(before[1])
            continue
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        assert torch.equal(param, twin)
        for key, value in other.state[twin].items():
            assert torch.equal(optimizer.state[param][key], value)


@pytest.mark.parametrize(
    ("dtype", "large"),
    [(torch.float32, 3e38), (torch.float64, 1e300), (torch.bfloat16, 3e38), (torch.float16, 6e4)],
)
def test_large_numbers_are_finite(dtype: torch.dtype, large: float) -> None:
    param = torch.nn.Parameter(torch.zeros(5000, dtype=dtype))
    optimizer = oc.SGD([param], lr=1e-5, transforms=[skip_nonfinite()])
    param.grad = torch.full_like(param, large)
    optimizer.step()
    assert bool((param != 0).all())


def test_it_finds_them_in_rows_of_a_sparse_gradient() -> None:
    param = torch.nn.Parameter(torch.zeros(4, 2))
    optimizer = oc.SGD([param], lr=1.0, transforms=[skip_nonfinite()])
    for value, expected in ((torch.nan, 0.0), (1.0, -1.0)):
        param.grad = torch.sparse_coo_tensor([[1]], [[value, 1.0]], (4, 2))
        optimizer.step()
        assert param[1, 0].item() == expected


def test_under_a_scaler_both_are_heeded() -> None:
    params = parameters(KINDS)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = oc.Adam(params, fused=True, transforms=[skip_nonfinite()])
    scaler.scale(sum(param.sum() for param in params)).backward()  # type: ignore[union-attr]
    before = [param.detach().clone() for param in params]
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(params[0], before[0])
    torch.testing.assert_close(optimizer.state[params[0]]["exp_avg"], torch.full((7,), 0.1))


def test_released_gradients_are_refused() -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="skip_nonfinite must see all gradients"):
        oc.release_gradients(model, oc.SGD(model.parameters(), transforms=[skip_nonfinite()]))


def test_it_has_no_options() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'bound'"):
        skip_nonfinite(bound=1.0)
