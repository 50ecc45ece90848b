"""What the tests of storage share: our rules and five of a user's, and the ways in which they are stored."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import ours, set_gradients

B, H, F = torch.bfloat16, torch.float16, torch.float32


class User(oc.ElementwiseOptimizer):
    """Whatever it is asked for goes by the defaults."""

    def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})


class Plain(User):
    """No states."""

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


class Lion(User):
    """Nothing but a sign of the state reaches the parameter."""

    states = ("exp_avg",)

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr, "mix": 0.1, "fresh": 0.01}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any) -> Any:
        return p - lr * xp.sign(exp_avg + mix * (g - exp_avg)), exp_avg + fresh * (g - exp_avg)


class AdaMax(User):
    """It counts its steps, and one state is never negative."""

    states = ("exp_avg", "exp_inf")

    @staticmethod
    def coefficients(step: float, lr: float) -> dict[str, float]:
        return {"lr": lr / (1 - 0.9**step), "fresh": 0.1, "kept": 0.999}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_inf: Any, lr: Any, fresh: Any, kept: Any) -> Any:
        exp_avg = exp_avg + fresh * (g - exp_avg)
        exp_inf = xp.maximum(kept * exp_inf, xp.abs(g) + 1e-8)
        return p - lr * exp_avg / exp_inf, exp_avg, exp_inf


class Rprop(User):
    """Comparisons, a state that begins with the rate, another that is the last gradient."""

    states = ("before", "size")

    @staticmethod
    def coefficients(first: bool, lr: float) -> dict[str, float]:
        return {"lr": lr, "first": first, "up": 1.2, "down": 0.5}

    @staticmethod
    def rule(p: Any, g: Any, before: Any, size: Any, lr: Any, first: Any, up: Any, down: Any) -> Any:
        size = 0 * size + lr if first else size
        agree = before * g
        size = xp.where(agree > 0, up * size, xp.where(agree < 0, down * size, size))
        size = xp.clamp(size, 1e-6, 50.0)
        return p - size * xp.sign(g), g, size


class Averaged(User):
    """A state that an option switches on, and one that follows the parameter itself."""

    states = ("average",)
    optional_states = {"velocity": "momentum"}

    @staticmethod
    def coefficients(lr: float, momentum: float) -> dict[str, Any]:
        return {"lr": lr, "momentum": momentum or None}

    @staticmethod
    def rule(p: Any, g: Any, average: Any, velocity: Any, lr: Any, momentum: Any) -> Any:
        if momentum is not None:
            velocity = g = momentum * velocity + g
        p = p - lr * g
        return p, average + 0.25 * (p - average), velocity


class Case(NamedTuple):
    """Attributes:
    states: how many it keeps.
    """

    make: Any
    states: int
    options: dict[str, Any] = {}


OPTIMIZERS = {
    "SGD": Case(ours("SGD"), 0),
    "Momentum": Case(ours("Momentum"), 1),
    "Adagrad": Case(ours("Adagrad"), 1),
    "RMSprop": Case(ours("RMSprop"), 3, {"momentum": 0.5, "centered": True}),
    "Adam": Case(ours("Adam"), 3, {"amsgrad": True}),
    "AdamW": Case(ours("AdamW"), 2),
    "Plain": Case(Plain, 0),
    "Lion": Case(Lion, 1),
    "AdaMax": Case(AdaMax, 2),
    "Rprop": Case(Rprop, 2),
    "Averaged": Case(Averaged, 2, {"momentum": 0.5}),
}
# The dtype of parameters, and the options.
STORED: list[tuple[torch.dtype, dict[str, Any]]] = [
    (F, {"state_dtype": B}),
    (F, {"state_dtype": B, "rounding": "kahan"}),
    (F, {"state_dtype": H, "rounding": "stochastic"}),
    (B, {"state_dtype": F}),
    (B, {"rounding": "nearest"}),
    (B, {"rounding": "stochastic"}),
    (B, {"rounding": "kahan"}),
    (H, {"rounding": "kahan", "state_dtype": B}),
    (H, {"rounding": "stochastic"}),
]


# Of what some of them ask for, squares in float16, there is a test of its own.
squares_in_float16 = pytest.mark.filterwarnings("ignore:.* in torch.float16, which has no number:UserWarning")


def some_parameters(dtype: torch.dtype, count: int = 300) -> list[Parameter]:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(count, generator=generator)
    second = torch.randn(3, 5, generator=generator).t()
    return [Parameter(first.to(dtype)), Parameter(second.to(dtype))]


def stepped(make: Any, dtype: torch.dtype, steps: int = 5, **options: Any) -> tuple[list[Parameter], Any]:
    params = some_parameters(dtype)
    optimizer = make(params, lr=0.01, **options)
    for step in range(steps):
        set_gradients(step, params)
        optimizer.step()
    return params, optimizer


def tensors_of(params: list[Parameter], optimizer: Any) -> list[tuple[str, Tensor]]:
    return [(k, v) for p in params for k, v in (("p", p.detach()), *optimizer.state.get(p, {}).items())]


def assert_same_tensors(
    mine: tuple[list[Parameter], Any], other: tuple[list[Parameter], Any], what: str = ""
) -> None:
    """Parameters and all states, to the last bit."""
    for (name, got), (label, expected) in zip(tensors_of(*mine), tensors_of(*other), strict=True):
        assert name == label, what
        assert got.dtype == expected.dtype, f"{name} {what}"
        torch.testing.assert_close(got, expected, rtol=0, atol=0, msg=lambda m, n=name: f"{n} {what}: {m}")
