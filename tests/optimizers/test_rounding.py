"""``rounding``: what adds up, what is right in the mean, what random bits depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from ..helpers import ENGINES, every_engine
from .stored import B, H, Lion, Plain


@every_engine
@pytest.mark.parametrize("dtype", [B, H], ids=str)
def test_small_changes_add_up(dtype: torch.dtype, engine: dict[str, bool]) -> None:
    """1 + 400 changes of 1/16 of the last place: nearest forgets all of them, Kahan none, chance some."""
    change = torch.finfo(dtype).eps / 16
    results = {}
    for rounding in ("nearest", "kahan", "stochastic"):
        param = Parameter(torch.ones(4000, dtype=dtype))
        optimizer = Plain([param], lr=1.0, rounding=rounding, **engine)
        for _ in range(32):
            param.grad = torch.full_like(param, -change)
            optimizer.step()
        results[rounding] = param.detach().float() - 1
    assert (results["nearest"] == 0).all()
    assert (results["kahan"] == 32 * change).all()
    # 32 draws with probability 1/16: the mean of 4000 sums has a standard deviation of 0.022 places.
    places = results["stochastic"] / (16 * change)
    assert abs(places.mean().item() - 2) < 5 * 0.022
    assert abs(places.var().item() - 32 / 16 * 15 / 16) < 0.3


@pytest.mark.parametrize("dtype", [B, H], ids=str)
@pytest.mark.parametrize("scale", [1.0, 3e-6], ids=["normal", "subnormal in float16"])
def test_chance_has_the_right_mean(dtype: torch.dtype, scale: float) -> None:
    """Numbers between two neighbours, each 1000 times: up as often as they are on the way up."""
    numbers = scale * (1 + torch.rand(200, generator=torch.Generator().manual_seed(3)))
    state = numbers.repeat_interleave(1000).requires_grad_()

    class Keep(Lion):
        @staticmethod
        def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any) -> Any:
            return p + 0 * (lr + mix + fresh), g

    optimizer = Keep([state], state_dtype=dtype, rounding="stochastic")
    state.grad = state.detach().clone()
    optimizer.step()
    kept = optimizer.state[state]["exp_avg"].float().view(200, 1000)
    up, down = kept.max(dim=1).values, kept.min(dim=1).values
    for got, number, high, low in zip(kept, numbers, up, down, strict=True):
        gap = (high - low).item()
        if gap == 0:  # the other neighbour is so far that 1000 draws may miss it
            gap = torch.finfo(dtype).eps * number.item()
        else:
            assert low <= number <= high
        # A share of 1000 draws has a standard deviation of at most 0.016.
        assert abs(got.mean().item() - number.item()) <= 5 * 0.016 * gap + 1e-9


def test_special_numbers_survive_each_way_of_rounding() -> None:
    special = [float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 1.0, 65504.0, 3.0e38]
    for dtype in (B, H):
        for rounding in ("nearest", "stochastic", "kahan"):
            for engine in ENGINES.values():
                param = Parameter(torch.tensor(special).to(dtype))
                before = param.detach().clone()
                optimizer = Plain([param], rounding=rounding, **engine)
                for _ in range(2):
                    param.grad = torch.zeros_like(param)
                    optimizer.step()
                torch.testing.assert_close(param.detach(), before, rtol=0, atol=0, equal_nan=True)


@every_engine
@pytest.mark.parametrize("dtype", [B, H], ids=str)
def test_chance_makes_nothing_infinite_that_nearest_would_keep(
    dtype: torch.dtype, engine: dict[str, bool]
) -> None:
    """Between the largest number and half of a place beyond it the next one up would be infinity."""
    largest, place = torch.finfo(dtype).max, torch.finfo(dtype).eps / 2 * 2.0 ** (16 if dtype == H else 128)
    numbers = torch.tensor([largest + share * place for share in (0.0, 0.1, 0.49, 0.5, 0.9)])
    assert (numbers.isfinite() & (numbers[1:3] > largest).all()).all(), "as float32"
    numbers = torch.cat([numbers, -numbers])

    class Keep(Lion):
        @staticmethod
        def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any) -> Any:
            return p + 0 * (lr + mix + fresh), g

    param = Parameter(torch.zeros(len(numbers), 500))
    optimizer = Keep([param], state_dtype=dtype, rounding="stochastic", **engine)
    param.grad = numbers[:, None].expand(-1, 500).contiguous()
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].equal(param.grad.to(dtype))


def test_chance_is_another_in_each_step_and_for_each_seed() -> None:
    param = Parameter(torch.ones(1000))
    optimizer = Lion([param], state_dtype=B, rounding="stochastic")
    seen = []
    for _ in range(2):
        optimizer.state.clear()
        param.grad = torch.full_like(param, 0.3)
        optimizer.step()
        seen.append(optimizer.state[param]["exp_avg"])
    assert not seen[0].equal(seen[1]), "the same numbers, another step"
    another = Parameter(torch.ones(1000))
    group = {"params": [another], "rounding_seed": 1}
    optimizer = Lion([group], state_dtype=B, rounding="stochastic")
    another.grad = torch.full_like(another, 0.3)
    optimizer.step()
    assert not seen[0].equal(optimizer.state[another]["exp_avg"])
