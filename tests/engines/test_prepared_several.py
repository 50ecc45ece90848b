"""Numbers over several tensors in the step that is one native call: searches, arithmetic, renewed options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.prepared import PreparedStep

from .formulas import rule_of
from .reducing import normal, optimizer_of
from .several import ClippedAdam, in_two_groups, parameters, set_gradients


@pytest.mark.parametrize("of_group", [False, True])
def test_a_clipped_step_is_one_call_and_equals_torchs(of_group: bool, taken: list[bool]) -> None:
    """Parameters of different ages, a schedule, gradients that are missing."""
    mine, theirs = parameters(), parameters()
    ours = ClippedAdam(in_two_groups(mine), of_group=of_group)
    reference = torch.optim.Adam(in_two_groups(theirs), lr=0.1, foreach=False)
    for step in range(12):
        for params in (mine, theirs):
            set_gradients(params, step % 5)
        for optimizer in (ours, reference):
            optimizer.param_groups[0]["lr"] = 0.2 / (1 + step)
        ours.step()
        for group in reference.param_groups if of_group else [{"params": theirs}]:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0, foreach=False)
        reference.step()
    assert taken[-6:] == [True] * 6, taken
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


NUMBERS = (
    ("xp.sqrt({s}) + xp.rsqrt({s}) - xp.reciprocal({s})", lambda s, m, lr: s**0.5 + s**-0.5 - 1 / s),
    ("xp.floor({s}) + xp.ceil({m}) + xp.sign({m} - {s})", lambda s, m, lr: math.floor(s) + math.ceil(m) - 1),
    ("xp.square({s}) - xp.abs({m} - {s})", lambda s, m, lr: s * s - abs(m - s)),
    ("({s} / 3) ** 1.5", lambda s, m, lr: (s / 3) ** 1.5),
    ("xp.maximum({s}, {m}) - xp.minimum({s}, {m})", lambda s, m, lr: s - m),
    ("xp.clamp({s}, max=2 * lr) + xp.clamp({m}, 3, 5)", lambda s, m, lr: 2 * lr + 3),
    ("xp.where(({s} > {m}) & ({m} < 1e9), {s}, lr)", lambda s, m, lr: s),
    ("xp.where(({s} > {m}) ^ ({m} < {s}) | ~({s} > 0), {s}, {m})", lambda s, m, lr: m),
    ("xp.where(xp.isfinite({s} / ({m} - {m})), 1.0, 0.25)", lambda s, m, lr: 0.25),
    (
        "xp.abs(xp.where({s} < {m}, {s}, -0.5)) + xp.sqrt(xp.where({s} > {m}, 0.25, {s}))",
        lambda s, m, lr: 1.0,
    ),
    ("xp.sqrt(xp.where({s} < {m}, lr, 4 * xp.full_like({s}, 0.25)))", lambda s, m, lr: 1.0),
    ("xp.exp(-{s}) + xp.tanh({m}) + xp.log({s})", lambda s, m, lr: math.exp(-s) + math.tanh(m) + math.log(s)),
)


@pytest.mark.parametrize(("text", "truth"), NUMBERS, ids=[text for text, _ in NUMBERS])
def test_arithmetic_of_numbers(
    text: str, truth: Callable[[float, float, float], float], taken: list[bool]
) -> None:
    """What has no native word (exponentials, which numpy computes in its own way) goes the usual way."""
    said = text.format(s='xp.sum(g, over="all")', m='xp.mean(g, over="group")')
    rule = rule_of((f"p + {said}", "m"))
    params = [Parameter(torch.zeros(n, dtype=torch.float64)) for n in (3, 5, 2)]
    optimizer = optimizer_of(rule, [{"params": params[:2]}, {"params": params[2:]}], ("m",))
    for param in params:
        param.grad = torch.full_like(param, 1.25)
    for _ in range(3):
        optimizer.step()
    assert taken == ([] if "exp" in text else [True] * 2)
    for param in params:
        expected = 3 * truth(12.5, 1.25, 0.25)
        torch.testing.assert_close(param.detach(), torch.full_like(param, expected), rtol=1e-14, atol=0)


def test_both_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        norm = xp.norm(g, over="all")  # type: ignore[call-arg]
        mean = xp.mean(p / norm, over="group")  # type: ignore[call-arg]
        return p - lr * (g / norm + mean**1.5 / (1 + norm)), m + xp.max(g - mean, over="all")  # type: ignore[call-overload]

    runs = []
    for is_prepared in (True, False):
        if not is_prepared:
            monkeypatch.setattr(PreparedStep, "take", lambda *_: False)
        params = [Parameter(p.detach().abs() if p.numel() else p.detach()) for p in parameters()]
        params[3] = Parameter(params[3].detach().float())  # a bucket of its own
        optimizer = optimizer_of(rule, in_two_groups(params), ("m",))
        for step in range(5):
            for i, param in enumerate(params):
                param.grad = normal(tuple(param.shape), 10 * step + i, param.dtype)
            optimizer.step()
        runs.append([each for param in params for each in (param.detach(), optimizer.state[param]["m"])])
    assert taken == [True] * 4
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(*runs, strict=True))


def test_a_gradient_that_is_not_finite_is_no_reason_for_the_usual_way(taken: list[bool]) -> None:
    rule = rule_of(('xp.where(xp.isfinite(xp.norm(g, over="all")), p - lr * g, p)', "m"))
    params = [Parameter(torch.zeros(4)) for _ in range(2)]
    optimizer = optimizer_of(rule, params, ("m",))
    for odd in (1.0, math.nan, 1.0, math.inf, 1.0):
        for param in params:
            param.grad = torch.ones_like(param)
        params[1].grad[2] = odd  # type: ignore[index]
        optimizer.step()
    assert taken == [True] * 4
    assert all(torch.equal(param, torch.full_like(param, -0.75)) for param in params)


class Renewing(ElementwiseOptimizer):
    """Renews a number by one that depends on the step, of the parameter that has taken the most."""

    states = ("m",)
    renews = ("size",)

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.5, "size": 1.0})

    @staticmethod
    def coefficients(step: Any, lr: Any, size: Any) -> Any:
        return {"lr": lr, "size": size, "share": 1 / step}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any, size: Any, share: Any) -> Any:
        size = size + share * xp.sum(g, over="all")  # type: ignore[call-overload]
        return p - lr * size * g, m, size


def test_options_are_renewed(taken: list[bool]) -> None:
    params = [Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    optimizer = Renewing([{"params": params[:1]}, {"params": params[1:]}])
    size, moved = 1.0, [torch.zeros(2, dtype=torch.float64) for _ in range(2)]
    for step in range(1, 8):
        params[0].grad = torch.full_like(params[0], 0.5)
        params[1].grad = torch.full_like(params[1], -0.25 * step) if step > 2 else None
        optimizer.step()
        total = 1.0 + (-0.5 * step if step > 2 else 0.0)
        for i, age in enumerate([step, step - 2]):
            if age > 0:
                moved[i] -= 0.5 * (size + total / age) * params[i].grad  # type: ignore[operator]
        size += total / step
        assert [group["size"] for group in optimizer.param_groups] == [pytest.approx(size)] * 2
    assert taken[-3:] == [True] * 3
    torch.testing.assert_close([param.detach() for param in params], moved)


def test_groups_that_begin_to_ask_for_different_numbers_are_refused(taken: list[bool]) -> None:
    class Choosing(ElementwiseOptimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.5, "clips": True})

        @staticmethod
        def coefficients(lr: Any, clips: Any) -> Any:
            return {"lr": lr, "clips": bool(clips)}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any, clips: Any) -> Any:
            return p - lr * (g / xp.norm(g, over="all") if clips else g)  # type: ignore[call-arg]

    params = [Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = Choosing([{"params": params[:1]}, {"params": params[1:]}])
    for param in params:
        param.grad = torch.ones_like(param)
    for _ in range(3):
        optimizer.step()
    before: list[Tensor] = [param.detach().clone() for param in params]
    optimizer.param_groups[1]["clips"] = False
    with pytest.raises(RuntimeError, match=r"norm\(over='all'\) of some parameters"):
        optimizer.step()
    assert taken == [True, True, False]
    assert all(map(torch.equal, before, params))
