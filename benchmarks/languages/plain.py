"""Adam, Lion and LAMB as classes of ``torch.optim.Optimizer``, with what users expect of ``step``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adam(Optimizer):
    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group, p, state in stepped(self, "exp_avg", "exp_avg_sq"):
            beta1, beta2 = group["betas"]
            state["step"] += 1
            state["exp_avg"].lerp_(p.grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            first, second = (1 - beta ** state["step"] for beta in (beta1, beta2))
            scale = state["exp_avg_sq"].sqrt().div_(second**0.5).add_(group["eps"])
            p.addcdiv_(state["exp_avg"], scale, value=-group["lr"] / first)
        return loss


class Lion(Optimizer):
    def __init__(
        self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group, p, state in stepped(self, "exp_avg"):
            beta1, beta2 = group["betas"]
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(state["exp_avg"].lerp(p.grad, 1 - beta1).sign_(), alpha=-group["lr"])
            state["exp_avg"].lerp_(p.grad, 1 - beta2)
        return loss


class LAMB(Optimizer):
    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group, p, state in stepped(self, "exp_avg", "exp_avg_sq"):
            beta1, beta2 = group["betas"]
            state["step"] += 1
            state["exp_avg"].lerp_(p.grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            first, second = (1 - beta ** state["step"] for beta in (beta1, beta2))
            update = state["exp_avg_sq"].sqrt().div_(second**0.5).add_(group["eps"])
            update = (state["exp_avg"] / update).div_(first).add_(p, alpha=group["weight_decay"])
            trust = p.norm() / update.norm()
            trust = torch.where((trust > 0) & trust.isfinite(), trust, 1.0)
            p.sub_(update.mul_(group["lr"] * trust))
        return loss


def stepped(optimizer: Optimizer, *names: str) -> Iterator[tuple[dict[str, Any], Any, dict[str, Any]]]:
    """Group, parameter and state of each parameter that has a gradient; new states are zero."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                state = optimizer.state[p]
                if not state:
                    state.update(step=0, **{name: torch.zeros_like(p) for name in names})
                yield group, p, state


def compiled(make: Callable[[list[Tensor]], Optimizer], params: list[Tensor]) -> Callable[[], object]:
    """The step of any of them behind ``torch.compile``; the number of steps is a tensor then.

    A number of Python's would be a constant of the compiled program, and each step another program.
    """
    optimizer = make(params)
    optimizer.step()
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.tensor(float(state["step"]))
    step: Callable[[], object] = torch.compile(optimizer.step, fullgraph=False)
    return step
