"""A user's optimizer is one formula of some 15 lines and gets the rest: engines, checkpoints, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch as xp
from torch import nn

from torchopt_course import ElementwiseOptimizer

from ..helpers import engines_used, every_engine, parameters, set_gradients

DECAY = 0.5


class Lion(ElementwiseOptimizer):
    """p -= lr * sign(interpolated momentum), decoupled decay (Chen et al., 2023)."""

    states = ("exp_avg",)

    def __init__(self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @staticmethod
    def coefficients(lr: Any, betas: Any, weight_decay: Any) -> Any:
        return {"lr": lr, "mix": 1 - betas[0], "fresh": 1 - betas[1], "decay": lr * weight_decay}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any, decay: Any) -> Any:
        update = exp_avg + mix * (g - exp_avg)
        return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)


def lion_in_numpy(p: Any, gradients: list[Any], lr: float, weight_decay: float) -> Any:
    m = np.zeros_like(p)
    for g in gradients:
        p = p - lr * weight_decay * p - lr * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return p


@every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lion(engine: dict[str, bool], dtype: torch.dtype) -> None:
    params = parameters(["vector", "channels_last", "large"], dtype)
    start = [param.detach().double().numpy().copy() for param in params]
    optimizer = Lion(params, lr=0.01, weight_decay=0.1)
    optimizer.param_groups[0].update(engine)
    gradients: list[list[Any]] = [[] for _ in params]
    for step in range(20):
        set_gradients(step, params)
        for seen, param in zip(gradients, params, strict=True):
            assert param.grad is not None
            seen.append(param.grad.double().numpy().copy())
        optimizer.step()
    for param, p, seen in zip(params, start, gradients, strict=True):
        expected = lion_in_numpy(p, seen, 0.01, 0.1)
        # A sign may flip where the average is zero up to rounding; such elements are few.
        wrong = np.abs(param.detach().double().numpy() - expected) > 1e-5
        assert wrong.mean() < 1e-4
    assert engines_used(optimizer)["cpu"] == (3 if engine.get("fused") else 0)
    assert list(optimizer.state[params[0]]) == ["exp_avg"]


def test_checkpoints_and_copies_come_along() -> None:
    params = parameters(["vector"])
    optimizer = Lion(params)
    set_gradients(0, params)
    optimizer.step()
    fresh = Lion(parameters(["vector"]))
    fresh.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], optimizer.state[params[0]]["exp_avg"])
    assert copy.deepcopy(optimizer).param_groups[0]["lr"] == 1e-4
    with pytest.raises(ValueError, match=r"-1"):
        Lion(params, lr=-1)


def halve(x: Any) -> Any:
    return x * DECAY


class WithHelper(ElementwiseOptimizer):
    """No state, a helper function, a global number, literals: all a rule may use."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @staticmethod
    def coefficients(step: Any, lr: Any) -> Any:
        return {"lr": lr, "warm": step > 2}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any, warm: Any) -> Any:
        if warm:
            g = xp.where(g > 0, halve(g), 2 * g)
        return p - lr * (g**2 + 1.5 * g)


@every_engine
def test_rule_may_use_helpers_constants_and_flags_that_change(engine: dict[str, bool]) -> None:
    weights = nn.Parameter(torch.linspace(-1, 1, 11))
    optimizer = WithHelper([weights])
    optimizer.param_groups[0].update(engine)
    expected = weights.detach().clone()
    grad = torch.linspace(-2, 2, 11)
    for step in range(1, 5):
        weights.grad = grad.clone()
        optimizer.step()
        g = grad if step <= 2 else torch.where(grad > 0, grad * 0.5, 2 * grad)
        expected -= 0.1 * (g * g + 1.5 * g)
        torch.testing.assert_close(weights.detach(), expected)
    assert engines_used(optimizer)["cpu"] == (1 if engine.get("fused") else 0)
    assert optimizer.state[weights]["step"] == 4


@every_engine
def test_results_that_change_places(engine: dict[str, bool]) -> None:
    """The new parameter stands in the memory of the state and the reverse: neither may get lost."""

    class Swap(ElementwiseOptimizer):
        states = ("other", "kept")

        def __init__(self, params: Any) -> None:
            super().__init__(params, {"one": 1.0, **engine})

        @staticmethod
        def coefficients(one: float) -> dict[str, float]:
            return {"one": one}

        @staticmethod
        def rule(p: Any, g: Any, other: Any, kept: Any, one: Any) -> Any:
            return other + one, p * one, p

    param = nn.Parameter(torch.full((3,), 5.0))
    optimizer = Swap([param])
    param.grad = torch.ones(3)
    optimizer.step()
    assert param.tolist() == [1.0] * 3
    assert optimizer.state[param]["other"].tolist() == [5.0] * 3
    assert optimizer.state[param]["kept"].tolist() == [5.0] * 3


def test_numbers_in_the_formula_do_not_make_it_double_precision() -> None:
    """numba would compute ``1.1 * g`` in float64; the fused kernel must round as float32 does."""

    class Literal(ElementwiseOptimizer):
        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any) -> Any:
            return (1 - 1.1 * g) * 3 + 0.7 * p

    weights = nn.Parameter(torch.randn(1000))
    weights.grad = torch.randn(1000)
    p, g = weights.detach().numpy().copy(), weights.grad.numpy()
    Literal([weights], {"lr": 0.1, "fused": True}).step()
    one, x, three, y = (np.float32(number) for number in (1, 1.1, 3, 0.7))
    np.testing.assert_array_equal(weights.detach().numpy(), (one - x * g) * three + y * p)


def test_signature_that_does_not_fit_is_explained() -> None:
    class Swapped(Lion):
        @staticmethod
        def rule(p: Any, exp_avg: Any, g: Any, lr: Any, mix: Any, fresh: Any, decay: Any) -> Any:
            return p, exp_avg

    with pytest.raises(TypeError, match=r"must start with the parameters \(p, g, exp_avg\)"):
        Swapped(parameters(["vector"]))


def test_coefficients_that_do_not_fit_are_explained() -> None:
    class Forgetful(Lion):
        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

    params = parameters(["vector"])
    set_gradients(0, params)
    before = params[0].detach().clone()
    with pytest.raises(TypeError, match=r"takes the coefficients .*'mix'.* returned \['lr'\]"):
        Forgetful(params).step()
    assert torch.equal(params[0], before)


@every_engine
def test_coefficients_that_fail_leave_the_step_uncounted(engine: dict[str, bool]) -> None:
    class Failing(Lion):
        @staticmethod
        def coefficients(step: Any, lr: Any, betas: Any, weight_decay: Any) -> Any:
            if step == 2:
                raise ZeroDivisionError
            return Lion.coefficients(lr, betas, weight_decay)

    params = parameters(["vector"])
    optimizer = Failing(params)
    optimizer.param_groups[0].update(engine)
    set_gradients(0, params)
    optimizer.step()
    before = params[0].detach().clone()
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert optimizer.state[params[0]]["step"] == 1
    assert torch.equal(params[0], before)


def test_rule_with_a_function_that_is_not_on_the_list_runs_on_eager() -> None:
    class Fancy(ElementwiseOptimizer):
        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any) -> Any:
            return p - lr * xp.special.erf(g)

    params = parameters(["vector"])
    set_gradients(0, params)
    assert params[0].grad is not None
    expected = params[0].detach() - 0.1 * torch.special.erf(params[0].grad)
    optimizer = Fancy(params, {"lr": 0.1})
    optimizer.step()  # without a warning: nothing is amiss
    assert "Fancy.rule calls torch.special.erf(), which is not on the list" in optimizer.engine_report()
    torch.testing.assert_close(params[0].detach(), expected)
    with pytest.raises(RuntimeError, match=r"fused=True, but .* torch\.special\.erf\(\)"):
        Fancy(params, {"lr": 0.1, "fused": True}).step()
