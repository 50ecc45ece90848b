"""What a failed check says: two values, and how far they are apart in every unit one might ask for."""

from __future__ import annotations

import math
import unittest
from typing import TypeAlias

import torch
from torch import Tensor

# What a run has left after each step: each parameter and each of its states, by name.
History: TypeAlias = list[dict[str, Tensor]]


class OptimizerError(AssertionError):
    """A check has failed; the message names the optimizer, the check, the step, the element, both values.

    Attributes:
        failures: the error of each check that failed, if there were several checks.
    """

    def __init__(self, message: str, failures: tuple[OptimizerError, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class NotAsked(unittest.SkipTest):
    """The check does not apply to this optimizer, and why; pytest and unittest report it as skipped."""


def compare(what: str, mine: History, other: str, expected: History, *, bound: float, first: int = 0) -> None:
    """Two runs must be the same after each step.

    Args:
        bound: how far two elements may be apart, relative to the largest element that the tensor has in all
            steps; 0 if they must be equal.
        first: the number of steps before the histories begin.

    Raises:
        OptimizerError: with the first step in which they differ, and the worst element in it.
    """
    largest: dict[str, float] = {}
    for values in expected:
        for name, value in values.items():
            size = float(value.double().abs().max()) if value.numel() else 0.0  # a mask has no abs()
            largest[name] = max(largest.get(name, 0.0), size)
    for step, (got, wanted) in enumerate(zip(mine, expected, strict=True), first + 1):
        if set(got) != set(wanted):
            odd = ", ".join(sorted(set(got) ^ set(wanted)))
            raise OptimizerError(f"only one of {what} and {other} has, in step {step}: {odd}")
        for name, value in wanted.items():
            apart = difference(got[name], value, bound * (largest[name] or 1.0))
            if apart is not None:
                raise OptimizerError(f"{what} and {other} differ first in step {step}, in {name}{apart}")


def difference(got: Tensor, wanted: Tensor, allowed: float) -> str | None:
    """In words: the element at which two tensors are furthest apart, if that is more than is allowed."""
    if got.shape != wanted.shape:
        return f": the shapes are {tuple(got.shape)} and {tuple(wanted.shape)}"
    gap = (got.to(torch.float64) - wanted.to(torch.float64)).abs()
    same = (got == wanted) | (got.isnan() & wanted.isnan())
    gap = torch.where(same, 0.0, gap.nan_to_num(nan=torch.inf))
    wrong = int((gap > allowed).sum())
    if not wrong:
        return None
    place = [int(i) for i in torch.unravel_index(gap.argmax(), gap.shape)] if gap.dim() else []
    a, b = float(got[tuple(place)]), float(wanted[tuple(place)])
    apart = f"{place or ''}: {a:.9g} and {b:.9g}, {distance(a, b, wanted.dtype)}"
    others = f"; so are {wrong} of its {gap.numel()} elements" if wrong > 1 else ""
    return f"{apart} (allowed {allowed:.2g}{others})"


def distance(a: float, b: float, dtype: torch.dtype) -> str:
    """How far two numbers are apart: absolutely, relatively, in units in the last place."""
    gap, size = abs(a - b), max(abs(a), abs(b))
    if not math.isfinite(gap):
        return "of which not both are numbers"
    words = f"{gap:.3g} apart, {gap / size:.2g} relative"
    if not dtype.is_floating_point:
        return words
    info = torch.finfo(dtype)
    last_place = max(2.0 ** (math.frexp(size)[1] - 1), info.smallest_normal) * info.eps
    return f"{words}, {gap / last_place:.3g} units in the last place of {short(dtype)}"


def short(dtype: torch.dtype) -> str:
    """``float64``, without the name of the package."""
    return str(dtype).removeprefix("torch.")


def together(name: str, count: int, failures: list[OptimizerError]) -> OptimizerError:
    """One error that reports all of them, what they have in common once."""
    if len(failures) == 1:
        error = OptimizerError(str(failures[0]), tuple(failures))
        error.__cause__ = failures[0].__cause__
        return error
    where: dict[str, list[str]] = {}
    for failure in failures:
        place, _, why = str(failure).removeprefix(f"{name}, ").partition(": ")
        where.setdefault(why, []).append(place)
    lines = [f"- {'; '.join(places)}: {why}" for why, places in where.items()]
    return OptimizerError(
        "\n".join([f"{name} fails {len(failures)} of {count} checks", *lines]), tuple(failures)
    )
