"""The fused CUDA engine and states of 16 bits: stored and rounded as on the other engines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import NAMES, ours, parameters, set_gradients, theirs
from ..optimizers.stored import squares_in_float16
from ..optimizers.test_half import assert_small_steps_add_up
from .test_cuda import run, twins

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("device")]
HAS_GPU = torch.cuda.is_available()
KINDS = ["scalar", "empty", "vector", "transposed", "channels_last"]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(torch.bfloat16, {}), (torch.float16, {"rounding": "nearest"})],
    ids=str,
)
def test_a_summation_compensated_by_hand_works(
    dtype: torch.dtype, options: dict[str, Any], device: str
) -> None:
    # The interpreter cuts off where the GPU rounds to bfloat16; without compensation nothing moves at all.
    optimizer = assert_small_steps_add_up(dtype, device, places=1 if HAS_GPU else 2, **options)
    assert optimizer.engine_report().startswith("fused CUDA engine")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_half_is_computed_as_float32_and_rounded_once(name: str, dtype: torch.dtype, device: str) -> None:
    mine = [Parameter(param.detach().to(device, dtype)) for param in parameters(KINDS)]
    reference = [Parameter(param.detach().float()) for param in mine]
    optimizer, other = ours(name)(mine, lr=0.1), theirs(name)(reference, lr=0.1, foreach=False)
    set_gradients(0, mine)
    for param, twin in zip(mine, reference, strict=True):
        assert param.grad is not None
        twin.grad = param.grad.float()
    optimizer.step()
    other.step()
    for param, twin in zip(mine, reference, strict=True):
        assert param.dtype == dtype
        # The interpreter cuts off where the GPU rounds to bfloat16.
        places = 0.5 if HAS_GPU or dtype == torch.float16 else 1.0
        allowed = torch.finfo(dtype).eps * places * twin.detach().abs() + torch.finfo(dtype).tiny
        assert ((param.detach().float() - twin.detach()).abs() <= 1.01 * allowed).all()


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"state_dtype": torch.float16, "rounding": "kahan"}),
        (torch.float32, {"state_dtype": torch.bfloat16, "rounding": "stochastic"}),
        (torch.bfloat16, {"state_dtype": torch.float32, "rounding": "stochastic"}),
        (torch.float16, {"rounding": "stochastic"}),
        (torch.float16, {"rounding": "kahan"}),
    ],
    ids=str,
)
@squares_in_float16
def test_stores_and_rounds_as_the_other_engines(
    dtype: torch.dtype, options: dict[str, Any], device: str
) -> None:
    mine, reference = twins(device, dtype, KINDS)
    for params in (mine, reference):  # for several programs; the interpreter is slow
        params.append(Parameter(torch.linspace(-2, 2, 9_001, device=device).to(dtype)))
    optimizer = oc.Adam(mine, lr=0.1, amsgrad=True, **options)
    other = oc.Adam(reference, lr=0.1, amsgrad=True, fused=False, **options)
    run(mine, reference, optimizer, other, steps=3)
    for param, twin in zip(mine, reference, strict=True):
        for name, got in {"p": param.detach(), **optimizer.state[param]}.items():
            expected = twin.detach() if name == "p" else other.state[twin][name]
            assert got.dtype == expected.dtype
            if not HAS_GPU:  # whose quotients differ in the last place
                torch.testing.assert_close(got, expected, rtol=0, atol=0)
            else:
                torch.testing.assert_close(got, expected, rtol=2**-7, atol=1e-3)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # by the interpreter
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_chance_makes_nothing_infinite_that_nearest_would_keep(dtype: torch.dtype, device: str) -> None:
    largest = torch.finfo(dtype).max
    numbers = [
        largest,
        largest * (1 + torch.finfo(dtype).eps / 5),
        largest * (1 + torch.finfo(dtype).eps / 3),
    ]
    start = torch.tensor(numbers, dtype=torch.float32, device=device).repeat(200)
    param = Parameter(torch.zeros(600, device=device))
    optimizer = oc.SGD([param], momentum=0.5, state_dtype=dtype, rounding="stochastic")
    param.grad = start
    optimizer.step()
    assert "fused CUDA engine" in optimizer.engine_report()
    assert optimizer.state[param]["momentum_buffer"].equal(start.to(dtype))
