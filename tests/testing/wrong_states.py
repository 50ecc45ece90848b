"""Optimizers with one mistake each in what they remember: from step to step, in checkpoints, in copies."""

from __future__ import annotations

import math
from typing import Any

import torch

from .wrong_optimizers import Right


class CorrectsTheBiasByACounterOfItsOwn(Right):
    """After a checkpoint the bias correction begins again."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        return super().step(closure)

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, self.steps, group)


class SharesItsState(Right):
    """One momentum for all parameters, in all groups."""

    def update(self, p: Any, group: Any) -> None:
        shared = self.__dict__.setdefault("shared", {})
        first = shared.setdefault("m", torch.zeros(()))
        first.mul_(0.9).add_(p.grad.sum().to(first), alpha=0.1)
        super().update(p, group)
        p.sub_(1e-3 * first.to(p))


class CountsTwice(Right):
    def count(self, step: int) -> int:
        return step + 2


class NeverCounts(Right):
    def count(self, step: int) -> int:
        return 1


class RemembersItsRate(Right):
    """As it was at construction."""

    def __init__(self, params: Any):
        super().__init__(params)
        self.rate = self.param_groups[0]["lr"]

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "lr": self.rate})


class KeepsItsStateToItself(Right):
    """Where no checkpoint sees it."""

    def update(self, p: Any, group: Any) -> None:
        kept = self.__dict__.setdefault("kept", {})
        self.state[p] = kept.setdefault(p, {})
        super().update(p, group)
        del self.state[p]


class KeepsAllGradients(Right):
    def update(self, p: Any, group: Any) -> None:
        self.__dict__.setdefault("history", []).append(p.grad)
        super().update(p, group)


class KeepsALog(Right):
    def update(self, p: Any, group: Any) -> None:
        self.__dict__.setdefault("norms", []).append(float(p.grad.norm()))
        super().update(p, group)


class CountsForTheGroup(Right):
    """So a parameter without a gradient ages all the same."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        return super().step(closure)

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, group["step"], group)


class KeepsABlank(Right):
    def update(self, p: Any, group: Any) -> None:
        super().update(p, group)
        self.state[p].setdefault("max_v", torch.zeros_like(p))


class LosesItsStateInCopies(Right):
    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)([torch.nn.Parameter(p.detach().clone()) for p in self.param_groups[0]["params"]])


class LosesItsStateInPickles(Right):
    def __getstate__(self) -> Any:
        return {**super().__getstate__(), "state": {}}  # type: ignore[misc]


class CannotBeScheduled(Right):
    """Its rate is counted down from the first one by itself."""

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        group["lr"] = group.setdefault("first_lr", group["lr"]) / math.sqrt(step)
        super().move(p, m, v, step, group)
