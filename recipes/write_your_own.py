"""Write your own optimizer: `python recipes/write_your_own.py`.

Four optimizers that torch has and this package has not, each as its formula. That is all there is to write.
The script checks them against torch's, on every engine; docs/zoo.md times them. Copy one and change
the formula.
"""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
import torch as xp

from recipes.common.command_line import parse, plain_endings
from recipes.common.errors import UserError
from torchopt_course import ElementwiseOptimizer
from torchopt_course.testing import OptimizerError, assert_optimizer_agrees


class Adadelta(ElementwiseOptimizer):
    """Zeiler, 2012: the step has the unit of the parameter."""

    states = ("square_avg", "acc_delta")

    def __init__(self, params: Any, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps})

    @staticmethod
    def coefficients(lr: Any, rho: Any, eps: Any) -> Any:
        return {"lr": lr, "rho": rho, "fresh": 1 - rho, "eps": eps}

    @staticmethod
    def rule(p: Any, g: Any, square_avg: Any, acc_delta: Any, lr: Any, rho: Any, fresh: Any, eps: Any) -> Any:
        square_avg = rho * square_avg + fresh * g * g
        delta = xp.sqrt(acc_delta + eps) / xp.sqrt(square_avg + eps) * g
        acc_delta = rho * acc_delta + fresh * delta * delta
        return p - lr * delta, square_avg, acc_delta


class Adamax(ElementwiseOptimizer):
    """Kingma, Ba, 2015: Adam with the largest gradient instead of the mean square."""

    states = ("exp_avg", "exp_inf")

    def __init__(self, params: Any, lr: float = 2e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @staticmethod
    def coefficients(step: Any, lr: Any, betas: Any, eps: Any) -> Any:
        return {"size": lr / (1 - betas[0] ** step), "fresh": 1 - betas[0], "keep": betas[1], "eps": eps}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_inf: Any, size: Any, fresh: Any, keep: Any, eps: Any) -> Any:
        exp_avg = exp_avg + fresh * (g - exp_avg)
        exp_inf = xp.maximum(keep * exp_inf, xp.abs(g) + eps)
        return p - size * exp_avg / exp_inf, exp_avg, exp_inf


class RAdam(ElementwiseOptimizer):
    """Liu et al., 2020: plain momentum until the variance can be known, then Adam with a rectified step."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @staticmethod
    def coefficients(step: Any, lr: Any, betas: Any, eps: Any) -> Any:
        longest = 2 / (1 - betas[1]) - 1
        left = betas[1] ** step
        length = longest - 2 * step * left / (1 - left)
        rectified = None  # the formula without it is another kernel
        if length > 5:
            shrink = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            rectified = math.sqrt(shrink * (1 - left))
        size = lr / (1 - betas[0] ** step)
        return {"size": size, "mix": 1 - betas[0], "fresh": 1 - betas[1], "eps": eps, "rectified": rectified}

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any,
        size: Any, mix: Any, fresh: Any, eps: Any, rectified: Any,
    ) -> Any:  # fmt: skip
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        if rectified is None:
            return p - size * exp_avg, exp_avg, exp_avg_sq
        return p - size * rectified * exp_avg / (xp.sqrt(exp_avg_sq) + eps), exp_avg, exp_avg_sq


class Rprop(ElementwiseOptimizer):
    """Riedmiller, Braun, 1993: each weight its own step, longer while the slope keeps its sign."""

    states = ("prev", "step_size")

    def __init__(
        self, params: Any, lr: float = 1e-2, etas: Any = (0.5, 1.2), sizes: Any = (1e-6, 50)
    ) -> None:
        super().__init__(params, {"lr": lr, "etas": etas, "sizes": sizes})

    def initial_state(self, name: str, param: torch.Tensor, group: Any) -> torch.Tensor:
        state = super().initial_state(name, param, group)
        return state.fill_(group["lr"]) if name == "step_size" else state

    @staticmethod
    def coefficients(etas: Any, sizes: Any) -> Any:
        return {"shorter": etas[0], "longer": etas[1], "least": sizes[0], "most": sizes[1]}

    @staticmethod
    def rule(
        p: Any, g: Any, prev: Any, step_size: Any, shorter: Any, longer: Any, least: Any, most: Any
    ) -> Any:
        product = g * prev
        step_size = xp.where(product > 0, step_size * longer, step_size)
        step_size = xp.where(product < 0, step_size * shorter, step_size)
        step_size = xp.clamp(step_size, least, most)
        g = xp.where(product < 0, 0 * g, g)
        return p - xp.sign(g) * step_size, g, step_size


CLASSICS: tuple[type[ElementwiseOptimizer], ...] = (Adadelta, Adamax, RAdam, Rprop)


@dataclass(frozen=True)
class Options:
    """Check four self-written optimizers against torch's."""


def check(cls: type[ElementwiseOptimizer]) -> None:
    """The same steps as torch's class of that name, and all that `assert_optimizer_agrees` asks for."""
    theirs = partial(getattr(torch.optim, cls.__name__), foreach=False)
    assert_optimizer_agrees(cls, reference=theirs, steps=12)


def main() -> None:
    """One line for each that agrees; one that does not ends the program."""
    parse(Options)
    with plain_endings():
        for cls in CLASSICS:
            try:
                check(cls)
            except OptimizerError as error:
                raise UserError(str(error)) from error
            print(f"{cls.__name__} takes the steps of torch.optim.{cls.__name__}, on every engine here")


if __name__ == "__main__":
    main()
