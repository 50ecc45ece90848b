"""Optimizers with one mistake each in what they make of their options, gradients and hooks."""

from __future__ import annotations

from typing import Any

import torch

from .wrong_optimizers import Right


class TakesTheFirstGroupsDecay(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        decay = self.param_groups[0]["weight_decay"]
        super().move(p, m, v, step, {**group, "weight_decay": decay})


class TakesTheConstructorsDecay(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "weight_decay": self.defaults["weight_decay"]})


class GrowsWhereItMaximizes(Right):
    """By a negative rate, which turns the decay too."""

    def update(self, p: Any, group: Any) -> None:
        rate = -group["lr"] if group["maximize"] else group["lr"]
        super().update(p, {**group, "maximize": False, "lr": rate})


class KeepsTheGradientItself(Right):
    """As its first momentum, and not a copy."""

    def update(self, p: Any, group: Any) -> None:
        is_first = "step" not in self.state[p]
        super().update(p, group)
        if is_first:
            self.state[p]["m"] = p.grad


class ClearsTheFirstGroup(Right):
    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = None if set_to_none else torch.zeros_like(p)


class CallsNoHooks(Right):
    """For its step is no method, which torch would have wrapped."""

    def __init__(self, params: Any):
        super().__init__(params)
        self.step = lambda closure=None: Right.step.__wrapped__(self, closure)  # type: ignore[method-assign]


class MixesUpGradients(Right):
    """Reads a transposed gradient in the order in which it lies in memory, as torch's fused kernels did."""

    def update(self, p: Any, group: Any) -> None:
        if p.dim() == 2 and p.is_contiguous() and p.grad.mT.is_contiguous():
            p.grad = p.grad.mT.reshape(p.shape)
        super().update(p, group)


# Each mistake, and the check that is there for it.
MISTAKES: list[tuple[type[Right], str]] = [
    (TakesTheFirstGroupsDecay, "groups"),
    (TakesTheConstructorsDecay, "weight decay"),
    (GrowsWhereItMaximizes, "maximize"),
    (KeepsTheGradientItself, "gradients reused"),
    (ClearsTheFirstGroup, "zero grad"),
    (CallsNoHooks, "hooks"),
    (MixesUpGradients, "layouts"),
]
