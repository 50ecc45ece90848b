"""How a derivative grows when it is written out as a formula, and what reverse mode pays instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from recipes.parts.counted_work import work
from torchopt_course import autograd
from torchopt_course.autograd import symbolic


@dataclass(frozen=True)
class Swell:
    """The logistic map l(x) = 4 x (1 - x), applied so many times (Baydin et al., 2018, table 1)."""

    iterations: int
    formula: int
    """Operations in the derivative as a formula, as the rules of differentiation write it."""
    reverse: int
    """Operations of value and derivative in reverse mode."""


def swell(most: int) -> list[Swell]:
    """For 1, 2, ... applications."""
    found = []
    for iterations in range(1, most + 1):
        program = iterated(iterations)
        (derivative,) = symbolic.formula(program).derivatives.values()
        operations = int(derivative.count_ops())
        at = torch.tensor(0.3, dtype=torch.float64)
        reverse = work(partial(autograd.grad(program), at))
        found.append(Swell(iterations, operations, reverse))
    return found


def iterated(times: int) -> Callable[[Any], Any]:
    """The map, applied again and again."""

    def program(x: Any) -> Any:
        for _ in range(times):
            x = 4 * x * (1 - x)
        return x

    return program


def grows_by(sizes: Sequence[int]) -> float:
    """The factor from one to the next, over the second half."""
    half = (len(sizes) - 1) // 2
    return float((sizes[-1] / sizes[half]) ** (1 / (len(sizes) - 1 - half)))
