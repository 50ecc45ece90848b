"""A class of a user's without a mistake, to put one into."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchopt_course import ElementwiseOptimizer

ONE_NUMBER = "a rule sees one number at a time; use xp.NAME"


class Mine(ElementwiseOptimizer):
    """A rule without a mistake."""

    states = ("m",)

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.5, **options})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return p - lr * g, m + g


def with_changes(**changes: Any) -> type[ElementwiseOptimizer]:
    """The class above with some of its attributes replaced, functions as static methods."""
    functions = {
        name: staticmethod(value)
        for name, value in changes.items()
        if type(value) is type(with_changes) and name != "initial_state"
    }
    return type("Mine", (Mine,), changes | functions)


def parameter() -> nn.Parameter:
    param = nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    return param


def without(name: str) -> type[ElementwiseOptimizer]:
    members = {n: vars(Mine)[n] for n in ("states", "__init__", "coefficients", "rule") if n != name}
    bare = type("Mine", (ElementwiseOptimizer,), {"__init__": lambda self, p: None, **members})
    return type(
        "Mine", (bare,), {"__init__": lambda self, p: ElementwiseOptimizer.__init__(self, p, {"lr": 1.0})}
    )
