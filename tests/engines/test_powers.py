"""Powers in float32 kernels, which compute them as vectors: the nearest float32, of odd numbers too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer

ODD = [0.0, 1.0, 2.0, 3.0, 8.0, 0.5, 1 + 2**-23, 1e-45, 1e-38, 3.4e38, np.inf]
EXPONENTS = [
    *(1 / 3, -1 / 3, 0.25, 0.8, -1.5, 2.5, 37.3, 1e-8, 100.0, -100.0, 1e30),
    *(0.0, 1.0, 2.0, 3.0, -3.0, -4.0, 5.0, np.inf, -np.inf),
]


class Power(ElementwiseOptimizer):
    """Each number to a power."""

    def __init__(self, params: Any, exponent: float) -> None:
        super().__init__(params, {"exponent": exponent, "fused": True})

    @staticmethod
    def coefficients(exponent: Any) -> Any:
        return {"exponent": exponent}

    @staticmethod
    def rule(p: Any, g: Any, exponent: Any) -> Any:
        return g**exponent


@pytest.fixture(scope="module")
def numbers() -> Any:
    lot = np.random.default_rng(0)
    sizes = [*ODD, *np.exp(lot.uniform(-100, 88, 3000)), *(1 + lot.uniform(-1e-4, 1e-4, 1000))]
    positive = np.array(sizes, dtype=np.float32)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype=np.float32)])


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_powers_are_right_to_the_last_place_but_for_ties(exponent: float, numbers: Any) -> None:
    param = Parameter(torch.zeros(len(numbers)))
    param.grad = torch.from_numpy(numbers.copy())
    optimizer = Power([param], exponent)
    optimizer.step()
    assert optimizer.engine_report().startswith("fused CPU engine")
    mine = param.detach().numpy()
    with np.errstate(all="ignore"):
        exact = np.power(numbers.astype(np.float64), np.float64(np.float32(exponent)))
        expected = exact.astype(np.float32)
        neighbours = np.nextafter(expected, mine)
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(mine[known]), np.signbit(expected[known]))
    is_next = (mine != expected) & known
    np.testing.assert_array_equal(mine[is_next], neighbours[is_next])
    assert is_next.mean() < 1e-3
