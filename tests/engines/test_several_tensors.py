"""Numbers over several tensors, ``over="group"`` and ``"all"``: alike on every engine, never of a part."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import Adam, Mixed
from torchopt_course.engines.cpu.reductions import BLOCK
from torchopt_course.engines.rule.namespace import XP

from .formulas import rule_of
from .reducing import ENGINES, normal, optimizer_of
from .several import ClippedAdam, clipped, in_two_groups, parameters, set_gradients


@pytest.mark.parametrize("of_group", [False, True])
def test_clipping_by_a_global_norm_is_torchs(engine: str, of_group: bool) -> None:
    mine, theirs = parameters(), parameters()
    ours = ClippedAdam(in_two_groups(mine), of_group=of_group, **ENGINES[engine])
    reference = torch.optim.Adam(in_two_groups(theirs), lr=0.1, foreach=False)
    for step in range(6):
        for params in (mine, theirs):
            set_gradients(params, step)
        ours.step()
        for group in reference.param_groups if of_group else [{"params": theirs}]:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0, foreach=False)
        reference.step()
        assert all(line.startswith((engine, "no engine")) for line in ours.engine_report().splitlines())
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(engine: str) -> None:
    rule = rule_of(
        (
            'xp.where(xp.isfinite(xp.sum(g, over="all")), p - lr * g, p)',
            'xp.where(xp.isfinite(xp.sum(g, over="all")), m + g, m)',
        )
    )
    params = parameters()
    optimizer = optimizer_of(rule, params, ("m",), **ENGINES[engine])
    for odd in (1.0, math.nan, math.inf):
        before = [param.detach().clone() for param in params]
        for param in params:
            param.grad = torch.ones_like(param)
        params[2].grad[1, 5] = odd  # type: ignore[index]
        optimizer.step()
        for param, old in zip(params, before, strict=True):
            assert torch.equal(param, old - 0.25 if odd == 1 else old)
            assert torch.equal(optimizer.state[param]["m"], torch.ones_like(param))


def test_one_number_of_tensors_on_different_engines() -> None:
    """Each group another engine, and 16 bits beside 64: the number is of all of them."""
    params = [
        Parameter(normal((50,), i, dtype)) for i, dtype in enumerate([torch.float64, torch.float32] * 2)
    ]
    params += [Parameter(torch.zeros(40, dtype=torch.bfloat16)) for _ in range(2)]
    groups = [
        {"params": params[:1], "fused": True},
        {"params": [params[1], params[5]], "foreach": True},
        {"params": params[2:3], "fused": False},
        {"params": params[3:5], "fused": None},
    ]
    optimizer = optimizer_of(clipped, groups, ("m",))
    before = [param.detach().clone().double() for param in params]
    for i, param in enumerate(params):
        param.grad = torch.full_like(param, i + 1.0)
    optimizer.step()
    report = optimizer.engine_report()
    assert all(name in report for name in ("fused CPU", "foreach", "eager")), report
    norm = math.sqrt(sum(param.numel() * (i + 1.0) ** 2 for i, param in enumerate(params)))
    for i, (param, old) in enumerate(zip(params, before, strict=True)):
        tolerance = max(1e-7, 4 * torch.finfo(param.dtype).eps)
        torch.testing.assert_close(
            param.detach().double(), old - 0.25 * (i + 1) / norm, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_on_every_number_of_threads(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    runs = []
    for count in (1, 2, 3):
        threads(count)
        params = [
            Parameter(normal(shape, i, dtype)) for i, shape in enumerate([(3 * BLOCK + 5,), (40, 1000)])
        ]
        optimizer = optimizer_of(clipped, params, ("m",), fused=True)
        for step in range(2):
            for i, param in enumerate(params):
                param.grad = normal(tuple(param.shape), 10 + i + step, dtype)
            optimizer.step()
        runs.append([param.detach() for param in params])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_numbers_of_16_bits_are_summed_in_more(engine: str, rounding: str) -> None:
    """A million small numbers: in 16 bits their norm would be lost."""
    params = [Parameter(torch.zeros(1 << 15, dtype=torch.bfloat16)) for _ in range(2)]
    options = {**ENGINES[engine], "rounding": rounding}
    optimizer = optimizer_of(
        rule_of(('p - lr * xp.norm(g, over="all")', "m + xp.sum(g, over='all')")), params, ("m",), **options
    )
    for param in params:
        param.grad = torch.full_like(param, 2.0**-8)
    optimizer.step()
    for param in params:
        torch.testing.assert_close(
            param.detach().double(), torch.full_like(param, -0.25).double(), rtol=1e-2, atol=0
        )
        torch.testing.assert_close(
            optimizer.state[param]["m"].double(), torch.full_like(param, 256.0).double(), rtol=1e-2, atol=0
        )


def test_gradients_flow_through_a_number_of_several_tensors() -> None:
    def after(lr: Tensor, grads: list[Tensor]) -> Tensor:
        params = [Parameter(torch.zeros(3, dtype=torch.float64)) for _ in grads]
        clones = [param.clone() for param in params]
        optimizer = optimizer_of(clipped, params, ("m",), differentiable=True, lr=lr)
        optimizer.param_groups[0]["params"] = clones
        for clone, grad in zip(clones, grads, strict=True):
            clone.grad = grad
        optimizer.step()
        return sum(clone.exp().sum() for clone in clones)  # type: ignore[return-value]

    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    grads = [normal((3,), i).requires_grad_() for i in range(2)]
    mine = torch.autograd.grad(after(lr, grads), [lr, *grads])
    norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))  # type: ignore[arg-type]
    loss = sum((-lr * g / norm).exp().sum() for g in grads)
    for a, b in zip(mine, torch.autograd.grad(loss, [lr, *grads]), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(a, b)


def test_grad_scaler_unscales_before_anything_is_reduced(engine: str) -> None:
    params = [Parameter(normal((50,), i)) for i in range(2)]
    before = [param.detach().clone() for param in params]
    optimizer = optimizer_of(clipped, params, ("m",), **ENGINES[engine])
    optimizer.grad_scale = torch.tensor(64.0)  # type: ignore[attr-defined]
    for found in (1.0, 0.0):
        optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
        for i, param in enumerate(params):
            param.grad = 64 * torch.full_like(param, i + 1.0)
        optimizer.step()
        for i, (param, old) in enumerate(zip(params, before, strict=True)):
            moved = 0.0 if found else 0.25 * (i + 1) / math.sqrt(250)
            torch.testing.assert_close(param.detach(), old - moved)


def test_each_route_of_mixed_has_numbers_of_its_own() -> None:
    params = [Parameter(torch.zeros(4)) for _ in range(3)]
    routes = [(lambda name, p: p is params[0], Adam, {}), (None, ClippedAdam, {"lr": 0.5, "max_norm": 2.0})]
    optimizer = Mixed(params, routes)
    others = [Parameter(torch.zeros(4)) for _ in range(2)]
    alone = ClippedAdam(others, lr=0.5, max_norm=2.0)
    for i, param in enumerate((*params, *others)):
        param.grad = torch.full_like(param, 1.0 + (i - 1) % 2)
    optimizer.step()
    alone.step()
    for a, b in zip(params[1:], others, strict=True):
        assert torch.equal(a, b)


def test_a_rule_that_begins_to_see_several_tensors_in_a_later_step(engine: str) -> None:
    class Later(ClippedAdam):
        @staticmethod
        def coefficients(step: Any, lr: Any, max_norm: Any, of_group: Any) -> Any:
            return {**ClippedAdam.coefficients(step, lr, max_norm, of_group), "is_late": step > 1}

        @staticmethod
        def rule(  # type: ignore[override]
            p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any, max_norm: Any, of_group: Any,
            is_late: Any,
        ) -> Any:  # fmt: skip
            return p - lr * (g / xp.norm(g, over="all") if is_late else g), exp_avg, exp_avg_sq

    params = [Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    options = {name: value for name, value in ENGINES[engine].items() if "CUDA" not in engine}
    optimizer = Later(params, **options)
    moved = 0.0
    for step in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        lr = 0.1 / (1 - 0.9 ** (step + 1))
        moved += lr if step == 0 else lr / 2
        torch.testing.assert_close(params[0].detach(), torch.full_like(params[0], -moved))


def test_the_namespace_is_torch_but_for_reductions() -> None:
    assert XP.sqrt is torch.sqrt
    assert XP.nn is torch.nn
    x = normal((4, 3))
    assert torch.equal(XP.norm(x), torch.norm(x))
    assert torch.equal(XP.sum(x, 0), x.sum(0))
    torch.testing.assert_close(XP.rms(x), x.square().mean().sqrt())
    torch.testing.assert_close(XP.dot(x, x), (x * x).sum())
