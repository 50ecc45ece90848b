"""A rule for whole tensors against plain code: any states, stacked or one by one, in any kind of step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import TensorOptimizer
from torchopt_course.testing import assert_optimizer_agrees

from ..helpers import ROOT
from .shampoo import STEPS, Shampoo, gradient, parameters, power, run, shampoo_by_hand


def test_shampoo_is_what_plain_code_says() -> None:
    params = parameters()
    expected = shampoo_by_hand([p.detach().clone() for p in params], gradient, 0.1)
    optimizer = Shampoo(params)
    run(optimizer, range(STEPS))
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=1e-9, atol=1e-9)
    state = optimizer.state[params[1]]
    assert sorted(state) == ["count", "largest"], "a state that is None is not kept"
    assert (state["count"].item(), state["count"].dtype) == (STEPS, torch.int64)
    assert state["largest"].item() == max(gradient(i, params[1]).abs().max() for i in range(STEPS)).float()
    assert optimizer.engine_report() == "torch, whole tensors: 4 parameters, 41 elements"


@pytest.mark.slow
def test_passes_the_kit() -> None:
    class Normalized(TensorOptimizer):
        """The gradient's direction, and how often it was there."""

        states = ("norms", "n")

        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})

        def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
            return param.new_zeros((), dtype=torch.int32 if name == "n" else None)

        @staticmethod
        def coefficients(lr: Any, step: Any) -> Any:
            return {"lr": lr, "step": step}

        @staticmethod
        def rule(p: Any, g: Any, norms: Any, n: Any, lr: Any, step: Any) -> Any:
            assert n == step - 1
            return p - lr * g / (g.norm() + 1e-3), norms + g.norm(), n + 1

    assert_optimizer_agrees(Normalized, fused=False, steps=4)


def test_maximize_closures_schedules_and_late_gradients() -> None:
    up, down = Shampoo(parameters(), maximize=True), Shampoo(parameters())
    run(up, range(5), sign=-1.0)
    run(down, range(5))
    for a, b in zip(up.param_groups[0]["params"], down.param_groups[0]["params"], strict=True):
        assert torch.equal(a, b)

    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = Shampoo(params)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (params[1] ** 2).sum()  # the others have no gradient
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    torch.testing.assert_close(loss, (before[1] ** 2).sum())
    torch.testing.assert_close(params[1].detach(), 0.8 * before[1])
    assert [*optimizer.state] == [params[1]]
    schedule.step()
    optimizer.step(closure)
    torch.testing.assert_close(params[1].detach(), 0.8 * before[1])
    run(optimizer, range(1))
    assert [optimizer.state[p]["count"].item() for p in params] == [1, 3, 1, 1]


class Whitened(TensorOptimizer):
    """G (GᵀG + 1)^(-1/2) of a momentum, all matrices of one shape in one batched decomposition."""

    states = ("m", "seen")
    stacked = True
    calls: list[tuple[int, ...]] = []

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        return torch.zeros((), dtype=torch.int64) if name == "seen" else torch.zeros_like(param).detach()

    @staticmethod
    def coefficients(lr: Any, step: Any) -> Any:
        return {"lr": lr, "damped": lr / step}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, seen: Any, lr: Any, damped: Any) -> Any:
        Whitened.calls.append(tuple(p.shape))
        m.lerp_(g, 0.1)
        gram = m.mT @ m + torch.eye(m.shape[-1]).to(m)
        return p - damped * m @ power(gram, -1 / 2), m, seen + 1


def test_parameters_of_one_shape_are_stacked() -> None:
    shapes = [(4, 3), (2, 5), (4, 3), (4, 3)]
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]
    by_hand = [p.detach().clone() for p in params]
    optimizer = Whitened(params)
    moments = [torch.zeros_like(p) for p in by_hand]
    counts = [0] * 4
    for step in range(STEPS):
        Whitened.calls.clear()
        for i, (param, w) in enumerate(zip(params, by_hand, strict=True)):
            param.grad = None if (i, step) == (2, 1) else gradient(step, param)
            if param.grad is None:
                continue
            counts[i] += 1
            moments[i] = 0.9 * moments[i] + 0.1 * param.grad
            u, s, vh = torch.linalg.svd(moments[i], full_matrices=False)
            w -= 0.1 / counts[i] * u @ torch.diag(s / (s**2 + 1) ** 0.5) @ vh
        optimizer.step()
        # One step behind, it has coefficients of its own.
        together = [(3, 4, 3), (1, 2, 5)] if step == 0 else [(2, 4, 3), (1, 2, 5)] + [(1, 4, 3)] * (step > 1)
        assert Whitened.calls == together
    for param, w in zip(params, by_hand, strict=True):
        torch.testing.assert_close(param.detach(), w, rtol=1e-9, atol=1e-9)
    assert [optimizer.state[p]["seen"].item() for p in params] == counts


def test_differentiable() -> None:
    weight = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    param = weight.clone()
    optimizer = Shampoo([weight], differentiable=True)
    optimizer.param_groups[0]["params"] = [param]
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    optimizer.param_groups[0]["lr"] = rate
    param.grad = gradient(0, param)
    optimizer.step()
    param.sum().backward()
    (by_rate,) = torch.autograd.grad(-(weight.detach() - param.detach()).sum() / 0.1 * rate, rate)
    torch.testing.assert_close(rate.grad, by_rate)


def test_shared_memory_is_stepped_one_after_the_other() -> None:
    both = torch.ones(2, 3, dtype=torch.float64)
    first, second = Parameter(both), Parameter(both[0])
    optimizer = Shampoo([second, first], lr=0.1)
    second.grad, first.grad = torch.ones(3).double(), torch.zeros(2, 3).double()
    optimizer.step()
    torch.testing.assert_close(both, torch.tensor([[0.9] * 3, [1.0] * 3], dtype=torch.float64))


def test_the_documentation_runs() -> None:
    text = (ROOT / "docs" / "what_a_rule_sees.md").read_text(encoding="utf-8")
    section = text.split("## Whole tensors")[1].split("\n## ")[0]
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    params = parameters()[:1]
    expected = shampoo_by_hand([p.detach().clone() for p in params], gradient, 0.1)
    run(names["Shampoo"](params), range(STEPS))
    torch.testing.assert_close(params[0].detach(), expected[0], rtol=1e-9, atol=1e-9)
    groups = names["optimizer"].param_groups
    assert [(group["optimizer"], len(group["params"])) for group in groups] == [("Shampoo", 1), ("AdamW", 3)]
