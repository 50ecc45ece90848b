"""16-bit floats on the CPU: arithmetic in float32, rounded once, when the result is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import ENGINES, NAMES, engines_used, ours, parameters, set_gradients, theirs

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
KINDS = ["scalar", "vector", "transposed", "channels_last", "empty"]


class Copy(oc.ElementwiseOptimizer):
    """p = g, which shows how numbers are read and written."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"zero": 0.0})

    @staticmethod
    def coefficients(zero: float) -> dict[str, float]:
        return {"zero": zero}

    @staticmethod
    def rule(p: Any, g: Any, zero: Any) -> Any:
        return g + zero


@HALVES
def test_every_number_is_read_and_written_as_it_is(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    param = Parameter(torch.zeros_like(every))
    param.grad = every.clone()
    Copy([param]).step()
    torch.testing.assert_close(param.detach(), every, rtol=0, atol=0, equal_nan=True)


@HALVES
@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_that_of_float32_rounded_once(name: str, dtype: torch.dtype) -> None:
    """From the same 16-bit numbers torch's float32 step, rounded, gives ours; but for a few ties."""
    extra = {"RMSprop": {"centered": True, "momentum": 0.5}, "Adam": {"amsgrad": True}}.get(name, {})
    mine = [Parameter(param.detach().to(dtype)) for param in parameters(KINDS)]
    optimizer = ours(name)(mine, lr=0.1, weight_decay=0.01, **extra)
    for step in range(6):
        reference = [Parameter(param.detach().float()) for param in mine]
        other = theirs(name)(reference, lr=0.1, weight_decay=0.01, foreach=False, **extra)
        for param, twin in zip(mine, reference, strict=True):
            for key, value in optimizer.state.get(param, {}).items():
                other.state[twin][key] = value.clone() if key == "step" else value.float()
        set_gradients(step, mine)
        for param, twin in zip(mine, reference, strict=True):
            assert param.grad is not None
            twin.grad = param.grad.float()
        optimizer.step()
        other.step()
        for param, twin in zip(mine, reference, strict=True):
            for got, exact in (
                (param.detach(), twin.detach()),
                *((optimizer.state[param][key], other.state[twin][key]) for key in optimizer.state[param]),
            ):
                assert got.dtype == (dtype if got.dim() or got is param else got.dtype)
                half_a_place = torch.finfo(got.dtype).eps / 2 * exact.abs() + torch.finfo(got.dtype).tiny
                assert ((got.float() - exact).abs() <= 1.01 * half_a_place).all()
    assert engines_used(optimizer)["cpu"] == len(KINDS)


@HALVES
@pytest.mark.parametrize("name", [name for name in NAMES if name != "RMSprop"])  # torch has no fused one
def test_trajectory_is_that_of_torch_fused(name: str, dtype: torch.dtype) -> None:
    # Contiguous ones only: torch's fused CPU kernels mix up the elements if a gradient is laid out otherwise.
    mine, reference = (
        [Parameter(param.detach().to(dtype)) for param in parameters(["scalar", "matrix"])] for _ in range(2)
    )
    optimizer, other = ours(name)(mine, lr=0.05), theirs(name)(reference, lr=0.05, fused=True)
    for step in range(10):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=4 * torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has no grad_dtype")
@pytest.mark.parametrize("grad_dtype", [torch.float32, None], ids=str)
@pytest.mark.parametrize("engine", [{}, {"foreach": True}, {"fused": False}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_dtype_that_the_parameter_asks_for(
    name: str, engine: dict[str, bool], grad_dtype: torch.dtype | None
) -> None:
    """``p.grad_dtype``: float32 gradients of a bfloat16 parameter; torch takes them for SGD alone."""
    mine, reference = (Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2))
    optimizer = ours(name)([mine], lr=0.1, **engine)
    for param in (mine, reference):
        param.grad_dtype = grad_dtype
        param.grad = torch.tensor([1.0, 1.001, -3.0])
    optimizer.step()
    if name == "SGD":
        theirs(name)([reference], lr=0.1).step()
    else:
        exact = Parameter(torch.ones(3))
        exact.grad = torch.tensor([1.0, 1.001, -3.0])
        theirs(name)([exact], lr=0.1).step()
        reference = exact.detach().bfloat16()
    torch.testing.assert_close(mine.detach(), reference.detach(), rtol=2**-8, atol=2**-8)
    assert mine.dtype == torch.bfloat16
    assert all(state.dtype == torch.bfloat16 for key, state in optimizer.state[mine].items() if key != "step")


def test_gradients_of_a_dtype_that_nobody_asked_for() -> None:
    param = Parameter(torch.ones(3, dtype=torch.bfloat16))
    grad = torch.ones(3)
    param.data, data = grad, param.data
    param.grad = grad
    param.data = data
    with pytest.raises(RuntimeError, match=r"has dtype torch\.float32, expected torch\.bfloat16"):
        oc.SGD([param]).step()


class Compensated(oc.ElementwiseOptimizer):
    """Gradient descent with Kahan's summation, written by hand."""

    states = ("compensation",)

    def __init__(self, params: Any, lr: float, **engine: Any) -> None:
        super().__init__(params, {"lr": lr, **engine})

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, compensation: Any, lr: Any) -> Any:
        step = compensation - lr * g
        new = p + step
        return new, step - (new - p)


def assert_small_steps_add_up(dtype: torch.dtype, device: str, places: int = 1, **engine: Any) -> Any:
    """250 steps, each less than half of the last place of 1, lead to 1.1 within some last places."""
    param = Parameter(torch.ones(5, dtype=dtype, device=device))
    optimizer = Compensated([param], lr=4e-4, **engine)
    for _ in range(250):
        param.grad = -torch.ones_like(param)
        optimizer.step()
    allowed = places * torch.finfo(dtype).eps
    torch.testing.assert_close(param.detach().float().cpu(), torch.full((5,), 1.1), rtol=0, atol=allowed)
    return optimizer


@HALVES
@pytest.mark.parametrize("options", [{}, {"rounding": "nearest"}, {"state_dtype": torch.float32}], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_summation_compensated_by_hand_works(
    engine: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """What rounding loses is the difference from the parameter that is kept, not from one never stored."""
    optimizer = assert_small_steps_add_up(dtype, "cpu", **ENGINES[engine], **options)
    if not options:  # with them, lists are left to eager
        assert f"{engine} engine" in optimizer.engine_report().lower()
