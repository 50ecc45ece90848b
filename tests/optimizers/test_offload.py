"""Float32 masters on the host with gradients of 16 bits, as a device sends them: ``p.grad_dtype``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch as xp
from torch import Tensor, nn
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import DENSE, ENGINES, NAMES, engines_used, every_engine, ours, parameters
from .stored import B, F, H, User, assert_same_tensors

pytestmark = pytest.mark.skipif(
    not hasattr(Tensor, "grad_dtype"), reason="this torch has no Tensor.grad_dtype"
)


def masters(dtype: torch.dtype | None) -> list[Parameter]:
    params = parameters(DENSE)
    for param in params:
        param.grad_dtype = dtype
    return params


def set_gradients(step: int, params: list[Parameter], dtype: torch.dtype, then: torch.dtype) -> None:
    """Gradients that are exact in ``dtype``, given as ``then``."""
    for i, param in enumerate(params):
        generator = torch.Generator().manual_seed(1000 * step + i)
        grad = torch.randn(param.shape, generator=generator)
        param.grad = torch.empty_like(param, dtype=then, requires_grad=False).copy_(grad.to(dtype))


@every_engine
@pytest.mark.parametrize("dtype", [B, H], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_steps_of_the_same_gradients_in_float32(
    name: str, dtype: torch.dtype, engine: dict[str, bool]
) -> None:
    mine, reference = masters(dtype), masters(F)
    optimizer, other = (ours(name)(params, lr=0.1, **engine) for params in (mine, reference))
    for step in range(4):
        set_gradients(step, mine, dtype, dtype)
        set_gradients(step, reference, dtype, F)
        optimizer.step()
        other.step()
    assert engines_used(optimizer) == engines_used(other), "no slower engine"
    assert_same_tensors((mine, optimizer), (reference, other))


@every_engine
@pytest.mark.parametrize("options", [{"state_dtype": B}, {"state_dtype": B, "rounding": "kahan"}], ids=str)
def test_states_of_16_bits_too(options: dict[str, Any], engine: dict[str, bool]) -> None:
    mine, reference = masters(B), masters(F)
    optimizer, other = (oc.AdamW(params, lr=0.1, **options, **engine) for params in (mine, reference))
    for step in range(4):
        set_gradients(step, mine, B, B)
        set_gradients(step, reference, B, F)
        optimizer.step()
        other.step()
    assert engines_used(optimizer)["cpu"] == (len(mine) if engine == ENGINES["cpu"] else 0)
    assert_same_tensors((mine, optimizer), (reference, other))


class Clipped(User):
    """A number of all gradients, whose squares bfloat16 would round."""

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g / xp.norm(g * g, over="all")  # type: ignore[call-overload]


@every_engine
def test_numbers_of_several_gradients_are_computed_in_float32(engine: dict[str, bool]) -> None:
    mine, reference = masters(B), masters(F)
    optimizer, other = (Clipped(params, lr=1.0, **engine) for params in (mine, reference))
    set_gradients(0, mine, B, B)
    set_gradients(0, reference, B, F)
    optimizer.step()
    other.step()
    for param, expected in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-7)


def test_gradients_of_any_dtype_and_of_another_in_each_step() -> None:
    mine, reference = masters(None), masters(F)
    optimizer, other = oc.Adam(mine), oc.Adam(reference)
    for step, dtype in enumerate((B, B, F, H, torch.float64, B)):
        set_gradients(step, mine, B, dtype)
        set_gradients(step, reference, B, F)
        for params in (mine, reference):
            params[step % 3].grad = None
        optimizer.step()
        other.step()
        assert engines_used(optimizer)["cpu"] == len(mine) - 1
    for param, expected in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-7)


def test_a_backward_pass_in_16_bits_into_masters() -> None:
    """The loop of who offloads by hand: a copy computes, its gradients come back as they are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).to(B)
    params = [Parameter(param.detach().float()) for param in model.parameters()]
    for master in params:
        master.grad_dtype = B
    optimizer = oc.Adam(params, lr=0.01)
    inputs = torch.randn(32, 6, dtype=B)
    losses = []
    for _ in range(60):
        loss = (model(inputs) - inputs[:, :1]).square().mean()
        model.zero_grad()
        loss.backward()
        for master, param in zip(params, model.parameters(), strict=True):
            assert param.grad is not None
            master.grad = param.grad
        optimizer.step()
        with torch.no_grad():
            for master, param in zip(params, model.parameters(), strict=True):
                param.copy_(master)
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert engines_used(optimizer)["cpu"] == 4
