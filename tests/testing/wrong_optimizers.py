"""Optimizers with one mistake each, and one without: what the checks are for."""

from __future__ import annotations

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


class GrowsByWeightDecay(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "weight_decay": -group["weight_decay"]})


class TakesTheFirstGroupsRate(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p, m, v, step, {**group, "lr": self.param_groups[0]["lr"]})


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


class FlattensByView(Right):
    def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
        super().move(p.view(-1), m.reshape(-1), v.reshape(-1), step, group)


class MixesUpLayouts(Right):
    """Reads a transposed matrix in the order in which it lies in memory."""

    def update(self, p: Any, group: Any) -> None:
        if p.dim() == 2 and not p.is_contiguous() and p.mT.is_contiguous():
            p.grad = p.grad.mT.contiguous().view(p.shape)
        super().update(p, group)


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
