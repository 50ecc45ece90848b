"""The fused CUDA engine: on a GPU where there is one, else by Triton's interpreter on the CPU.

The interpreter runs the same kernels, program by program, with numpy in the place of the GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, tensor, theirs

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("device")]
KINDS = ["scalar", "empty", "vector", "transposed", "channels_last"]
SLOPE = 0.5  # a number that a rule refers to by name


def twins(device: str, dtype: torch.dtype = torch.float32, kinds: list[str] = KINDS) -> list[list[Parameter]]:
    return [[Parameter(p.detach().to(device)) for p in parameters(kinds, dtype)] for _ in range(2)]


def run(mine: Any, reference: Any, optimizer: Any, other: Any, steps: int = 5) -> None:
    for step in range(steps):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert "fused CUDA engine" in optimizer.engine_report()
    assert "\n" not in optimizer.engine_report()


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"betas": (0.5, 0.9)}),
]
every_option = pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value)[:50])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_option
def test_equals_torch(name: str, options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    # The variance of a single float32 is the difference of two almost equal numbers.
    kinds = [kind for kind in KINDS if kind != "scalar"] if options.get("centered") else KINDS
    mine, reference = twins(device, dtype, kinds)
    optimizer, other = ours(name)(mine, **options), theirs(name)(reference, foreach=False, **options)
    run(mine, reference, optimizer, other)
    assert_same(mine, reference, optimizer, other)


@every_option
def test_what_can_be_is_prepared_ahead(
    name: str, options: dict[str, Any], device: str, taken: list[bool]
) -> None:
    """Gradients in few places or ever new ones, an edited rate, one without a gradient, a moved parameter."""
    mine, reference = twins(device, torch.float64, ["vector", "matrix", "one"])
    optimizer = ours(name)(mine, **options)
    other = theirs(name)(reference, foreach=False, **options)
    kept = []
    for step in range(14):
        set_gradients(step, mine, reference)
        kept.append([param.grad for param in mine])  # the next ones come to other places
        if step in (5, 6):
            optimizer.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.3 / step
        if step == 8:
            mine[2].grad = reference[2].grad = None
        if step == 11:
            mine[2].data = mine[2].data.clone()
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)
    assert optimizer.engine_report().startswith("fused CUDA engine")
    assert taken[:7] == [True] * 7
    assert not taken[7]


@pytest.mark.parametrize("rate", [0.01, torch.tensor(0.01, dtype=torch.float64)], ids=["number", "tensor"])
@every_option
def test_step_counted_on_the_device(
    name: str, options: dict[str, Any], rate: Any, device: str, steps_on_device: None, taken: list[bool]
) -> None:
    """With ``fused=True`` or ``capturable`` the coefficients are computed on the device, too.

    What depends on the step is computed by the kernel, and the next step can be prepared; tensors among the
    options are computed with by torch's operations.
    """
    is_tensor = isinstance(rate, Tensor)
    mine, reference = twins(device, torch.float64, ["vector", "matrix", "one"])
    optimizer = ours(name)(mine, lr=rate, fused=True, **options)
    other = theirs(name)(reference, lr=0.01, foreach=False, **options)
    for step in range(7):
        if step == 3:
            mine[2].grad = reference[2].grad = None
            optimizer.step()
            other.step()
        if step == 4 and not is_tensor:
            optimizer.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.02
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert "fused CUDA engine" in optimizer.engine_report()
    assert any(taken) is not is_tensor
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-12)
        assert all(optimizer.state[param][key].device == param.device for key in optimizer.state[param])
        if "step" in optimizer.state[param]:
            assert optimizer.state[param]["step"] == other.state[twin]["step"]


def test_gradients_may_come_late_and_vanish(device: str) -> None:
    mine, reference = twins(device, torch.float64)
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    for step in range(8):
        set_gradients(step, mine, reference)
        for i in range(len(KINDS)):
            if step < i or (step + i) % 4 == 0:
                mine[i].grad = reference[i].grad = None
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)


def test_addresses_that_are_not_aligned(device: str) -> None:
    """Parameters that are views into one buffer, one element off."""
    buffers = [tensor("vector", torch.float32).to(device).repeat(300) for _ in range(2)]
    mine, reference = ([Parameter(buffer[1:1500]), Parameter(buffer[1503:])] for buffer in buffers)
    optimizer, other = oc.RMSprop(mine), torch.optim.RMSprop(reference, foreach=False)
    run(mine, reference, optimizer, other, steps=2)
    assert_same(mine, reference, optimizer, other)


@pytest.mark.parametrize("overflow", [0, 1, 3])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_unscales_and_skips_inside_the_kernel(
    name: str, overflow: int, device: str, steps_on_device: None
) -> None:
    """What ``GradScaler`` hands over; an overflow leaves everything as it was, in the first step also."""
    options = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    mine, reference = twins(device, torch.float64)
    optimizer = ours(name)(mine, lr=0.1, fused=True, **options)
    other = theirs(name)(reference, lr=0.1, foreach=False, **options)
    for step in range(5):
        set_gradients(step, mine, reference)
        true = [param.grad.clone() for param in mine]
        for param in mine:
            param.grad *= 1024
        optimizer.grad_scale = torch.tensor(1024.0, device=device)
        optimizer.found_inf = torch.tensor(float(step == overflow), device=device)
        optimizer.step()
        if step != overflow:
            other.step()
            for param, grad in zip(mine, true, strict=True):
                torch.testing.assert_close(param.grad, grad, rtol=1e-12, atol=0)
        del optimizer.grad_scale, optimizer.found_inf
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-12)
    assert "fused CUDA engine" in optimizer.engine_report()


def soften(x: Any, slope: Any) -> Any:
    """A helper of the rule below."""
    return x / (1.0 + xp.abs(x) * SLOPE * slope)


class Softened(oc.ElementwiseOptimizer):
    """A user's rule with a helper, a number by name, and several functions."""

    states = ("memory",)

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr, "slope": 2.0}

    @staticmethod
    def rule(p: Any, g: Any, memory: Any, lr: Any, slope: Any) -> Any:
        memory = xp.maximum(memory, xp.abs(g)) + 0.1 * xp.sign(p) * xp.tanh(g)
        stretch = xp.where(g > 0, soften(g, slope**3 / 4), SLOPE * xp.exp(g) - 0.5)
        p = p - lr * stretch * (1 + memory**2) ** -0.5 * xp.rsqrt(2 + memory)
        return p, memory


def test_a_users_rule(device: str) -> None:
    mine, reference = twins(device, torch.float64)
    optimizer, eager = Softened(mine), Softened(reference, lr=0.1)
    for group in eager.param_groups:
        group["fused"] = False
    run(mine, reference, optimizer, eager)
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-12)


def test_a_coefficient_that_needs_the_number_goes_to_another_engine(
    device: str, steps_on_device: None, recwarn: Any
) -> None:
    """``if step > 2`` cannot be computed for all parameters at once: right all the same, with a reason."""

    class Warm(oc.ElementwiseOptimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        @staticmethod
        def coefficients(step: Any, lr: float) -> dict[str, float]:
            return {"lr": lr if step > 2 else 0.0}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any) -> Any:
            return p - lr * g

    param = Parameter(torch.ones(3, device=device))
    optimizer = Warm([param])
    param.grad = torch.ones_like(param)
    other = Parameter(torch.ones(2, device=device))
    optimizer.add_param_group({"params": [other]})
    for _ in range(4):
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full_like(param, 0.8))
