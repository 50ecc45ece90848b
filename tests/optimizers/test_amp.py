"""``torch.amp.GradScaler``: overflow at any step, the first included, and gradients that come late."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import ENGINES, NAMES, every_engine, ours, parameters, set_gradients, theirs

KINDS = ["scalar", "vector", "transposed", "channels_last"]


def scaled_run(
    optimizer: torch.optim.Optimizer, params: list[Parameter], overflows: set[int], late: bool = False
) -> None:
    """Eight steps under a scaler; where the loss overflows, the scaler must skip the step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    for step in range(8):
        set_gradients(step, params)
        for i, param in enumerate(params):
            assert param.grad is not None
            param.grad *= scaler.get_scale()
            if step in overflows and i == 1:
                param.grad.view(-1)[0] = float("inf")
            if late and step < 2 * i:
                param.grad = None
        if any(param.grad is not None for param in params):
            scaler.scale(torch.ones(()))  # the scaler makes its state at the first scale()
            scaler.step(optimizer)
            scaler.update()


@pytest.mark.parametrize("overflows", [set(), {0}, {3}, {0, 1, 5}], ids=str)
@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_equals_torch_under_a_scaler(name: str, engine: dict[str, bool], overflows: set[int]) -> None:
    """torch's loop version, stepped by the scaler's own unscaling, is the truth."""
    options: dict[str, Any] = {"dampening": 0.5} if name == "Momentum" else {}
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = ours(name)(mine, lr=0.1, **options, **engine)
    assert optimizer._step_supports_amp_scaling == bool(engine.get("fused"))
    scaled_run(optimizer, mine, overflows)
    scaled_run(theirs(name)(reference, lr=0.1, foreach=False, **options), reference, overflows)
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(param.grad, twin.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_first_gradients_late_under_a_scaler(name: str, engine: dict[str, bool]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    scaled_run(ours(name)(mine, lr=0.1, **engine), mine, {4}, late=True)
    scaled_run(theirs(name)(reference, lr=0.1, foreach=False), reference, {4}, late=True)
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-12)


def test_torchs_fused_sgd_uses_memory_it_never_wrote_after_an_overflow() -> None:
    """torch 2.14: after an overflow in the first step its velocity is whatever was in memory. Ours is not."""
    results = []
    for make in (torch.optim.SGD, oc.SGD):
        for junk in (1.0, 2.0):
            param = Parameter(torch.ones(5000))
            optimizer = make([param], lr=0.1, momentum=0.9, dampening=0.5, fused=True)
            memory = torch.full((5000,), junk)  # freed at once: torch's buffer is likely to be put here
            param.grad = torch.ones(5000)
            del memory
            optimizer.found_inf, optimizer.grad_scale = torch.tensor(1.0), torch.tensor(1.0)
            optimizer.step()
            optimizer.found_inf = torch.tensor(0.0)
            optimizer.step()
            results.append(param.detach().mean().item())
    # A first real step takes the gradient as it is: no dampening.
    assert results[2:] == pytest.approx([0.9, 0.9])


def test_unscaled_by_hand_for_clipping() -> None:
    mine, reference = parameters(KINDS), parameters(KINDS)
    for make, params in ((oc.Adam, mine), (torch.optim.Adam, reference)):
        optimizer = make(params, lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for step in range(3):
            set_gradients(step, params, scale=256.0)
            scaler.scale(torch.ones(()))
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            scaler.step(optimizer)
            scaler.update()
    for param, twin in zip(mine, reference, strict=True):
        if param.is_contiguous():  # torch's fused kernel mixes up the elements of the others
            torch.testing.assert_close(param, twin, rtol=1e-4, atol=1e-5)
