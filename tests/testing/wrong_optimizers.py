"""Optimizers with one mistake each, and one without: what the checks are for."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor


class Right(torch.optim.Optimizer):
    """Adam with decoupled weight decay, in few lines; the others are it but for one mistake."""

    def __init__(self, params: Any, lr: float = 1e-2, weight_decay: float = 0.0, maximize: bool = False):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": maximize})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, group)
        return loss

    def update(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if "step" not in state:
            state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
        state["step"] = self.count(state["step"])
        g = -p.grad if group["maximize"] else p.grad
        state["m"].lerp_(g, 0.1)
        state["v"].lerp_(g * g, 0.001)
        self.move(p, state["m"], state["v"], state["step"], group)

    def count(self, step: int) -> int:
        return step + 1

    def move(self, p: Tensor, m: Tensor, v: Tensor, step: int, group: dict[str, Any]) -> None:
        p.mul_(1 - group["lr"] * group["weight_decay"])
        unbiased = (v / (1 - 0.999**step)).sqrt()
        p.sub_(group["lr"] / (1 - 0.9**step) * m / (unbiased + 1e-8))


class Ascends(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, -m, v, step, group)


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


class GrowsByWeightDecay(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "weight_decay": -group["weight_decay"]})


class RemembersItsRate(Right):
    """As it was at construction."""

    def __init__(self, params: Any):
        super().__init__(params)
        self.rate = self.param_groups[0]["lr"]

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "lr": self.rate})


class TakesTheFirstGroupsRate(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "lr": self.param_groups[0]["lr"]})


class KeepsItsStateToItself(Right):
    """Where no checkpoint sees it."""

    def update(self, p: Any, group: Any) -> None:
        kept = self.__dict__.setdefault("kept", {})
        self.state[p] = kept.setdefault(p, {})
        super().update(p, group)
        del self.state[p]


class ThrowsDice(Right):
    """With a generator that ``torch.manual_seed`` does not reach."""

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m * random.choice([0.9, 1.0, 1.1]), v, step, group)


class WritesToTheGradient(Right):
    def update(self, p: Any, group: Any) -> None:
        p.grad.add_(p, alpha=group["weight_decay"])
        super().update(p, group)


class DependsOnTheOrder(Right):
    """What one parameter did, the next one feels."""

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        last = self.__dict__.get("last", 0.0)
        self.last = float(m.norm())
        super().move(p, m * (1 + 0.01 * last), v, step, group)


class NormOfAll(Right):
    """Right where it says so: coupled=True."""

    def step(self, closure: Any = None) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norm = float(torch.nn.utils.get_total_norm(grads)) if grads else 1.0
        return super().step(closure)

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "lr": group["lr"] / (1 + self.norm)})


class KeepsAllGradients(Right):
    def update(self, p: Any, group: Any) -> None:
        self.__dict__.setdefault("history", []).append(p.grad)
        super().update(p, group)


class KeepsALog(Right):
    def update(self, p: Any, group: Any) -> None:
        self.__dict__.setdefault("norms", []).append(float(p.grad.norm()))
        super().update(p, group)


class ReplacesItsParameters(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        p.data = p.data.clone()
        super().move(p, m, v, step, group)


class StepsWithoutAGradient(Right):
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
        return super().step(closure)


class CountsForTheGroup(Right):
    """So a parameter without a gradient ages all the same."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        return super().step(closure)

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, group["step"], group)


class IgnoresTheClosure(Right):
    def step(self, closure: Any = None) -> Any:
        return super().step()


class LosesTheLoss(Right):
    def step(self, closure: Any = None) -> Any:
        super().step(closure)


class HasNoEpsilon(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        p.sub_(group["lr"] * m / v.sqrt())


class OnlyDescends(Right):
    def update(self, p: Any, group: Any) -> None:
        super().update(p, {**group, "maximize": False})


class KeepsABlank(Right):
    def update(self, p: Any, group: Any) -> None:
        super().update(p, group)
        self.state[p].setdefault("max_v", torch.zeros_like(p))


class FlattensByView(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p.view(-1), m.reshape(-1), v.reshape(-1), step, group)


class MixesUpLayouts(Right):
    """Reads a transposed matrix in the order in which it lies in memory."""

    def update(self, p: Any, group: Any) -> None:
        if p.dim() == 2 and not p.is_contiguous() and p.mT.is_contiguous():
            p.grad = p.grad.mT.contiguous().view(p.shape)
        super().update(p, group)


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


class BreaksInHalf(Right):
    """1e-8 is zero in float16, and so is a small square."""

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, (v * 1e-8).to(p.dtype) * 1e8, step, group)


class IsRecorded(Right):
    """By autograd, as its step does not say no_grad."""

    def update(self, p: Any, group: Any) -> None:
        with torch.enable_grad():
            state = self.state[p]
            state["old"] = p + 0.5 * state.get("old", p.detach())
        super().update(p, group)


class AnotherFormulaWhenCompiled(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, 1 if torch.compiler.is_compiling() else step, group)


class ComputesInNumpy(Right):
    """Which knows nothing of sharded tensors."""

    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, torch.from_numpy(m.numpy().copy()), v, step, group)


# Each mistake, and the check that is there for it.
MISTAKES: list[tuple[type[Right], str]] = [
    (Ascends, "descends"),
    (CorrectsTheBiasByACounterOfItsOwn, "checkpoint"),
    (SharesItsState, "independence"),
    (CountsTwice, "counts steps"),
    (NeverCounts, "counts steps"),
    (GrowsByWeightDecay, "weight decay"),
    (RemembersItsRate, "learning rate"),
    (RemembersItsRate, "schedulers"),
    (TakesTheFirstGroupsRate, "groups"),
    (KeepsItsStateToItself, "checkpoint"),
    (ThrowsDice, "repeats"),
    (WritesToTheGradient, "gradients untouched"),
    (DependsOnTheOrder, "order"),
    (NormOfAll, "independence"),
    (KeepsAllGradients, "no growth"),
    (KeepsALog, "no growth"),
    (ReplacesItsParameters, "in place"),
    (StepsWithoutAGradient, "missing gradients"),
    (CountsForTheGroup, "missing gradients"),
    (IgnoresTheClosure, "closure"),
    (LosesTheLoss, "closure"),
    (HasNoEpsilon, "finite at zero"),
    (OnlyDescends, "maximize"),
    (KeepsABlank, "every state moves"),
    (FlattensByView, "layouts"),
    (MixesUpLayouts, "layouts"),
    (LosesItsStateInCopies, "deep copy"),
    (LosesItsStateInPickles, "pickle"),
    (CannotBeScheduled, "schedulers"),
    (BreaksInHalf, "half precision"),
    (IsRecorded, "in place"),
    (AnotherFormulaWhenCompiled, "compiled"),
    (ComputesInNumpy, "sharded"),
]
