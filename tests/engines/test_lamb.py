"""An optimizer of the literature that needs a tensor's norm, against its paper."""

from __future__ import annotations

from typing import Any

import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cpu.reductions import BLOCK

from .reducing import ENGINES, normal


class Lamb(ElementwiseOptimizer):
    """Layers are scaled by the ratio of the parameter's norm to the update's (You et al., 2020)."""

    states = ("exp_avg", "exp_avg_sq")

    @staticmethod
    def coefficients(step: Any, lr: Any, betas: Any, eps: Any, weight_decay: Any) -> Any:
        return {
            "lr": lr,
            "mix": 1 - betas[0],
            "fresh": 1 - betas[1],
            "bias1": 1 - betas[0] ** step,
            "bias2": 1 - betas[1] ** step,
            "eps": eps,
            "decay": weight_decay,
        }

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, mix: Any, fresh: Any, bias1: Any, bias2: Any,
        eps: Any, decay: Any,
    ) -> Any:  # fmt: skip
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        u = exp_avg / bias1 / (xp.sqrt(exp_avg_sq / bias2) + eps) + decay * p
        trust = xp.norm(p) / xp.norm(u)
        return p - lr * xp.where(xp.isfinite(trust) & (trust > 0), trust, 1) * u, exp_avg, exp_avg_sq


def lamb_by_hand(p: Tensor, grads: list[Tensor], lr: float, eps: float, decay: float) -> Tensor:
    p, m, v = p.clone(), torch.zeros_like(p), torch.zeros_like(p)
    for t, g in enumerate(grads, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g**2
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + eps) + decay * p
        weight, update = p.norm().item(), r.norm().item()
        p = p - lr * (weight / update if weight > 0 and update > 0 else 1.0) * r
    return p


def test_lamb_is_that_of_its_paper(engine: str) -> None:
    shapes = [(5, 4), (3,), (BLOCK + 9,)]
    params = [Parameter(normal(shape, i)) for i, shape in enumerate(shapes)]
    params[1].data.zero_()  # no norm: no scaling
    options = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    optimizer = Lamb(params, options | ENGINES[engine])
    steps = 60 if engine != "fused CUDA engine" else 5  # the interpreter is slow
    grads = [[normal(shape, 100 * i + step) for step in range(steps)] for i, shape in enumerate(shapes)]
    expected = [
        lamb_by_hand(param.detach(), own, 0.01, 1e-6, 0.1) for param, own in zip(params, grads, strict=True)
    ]
    for step in range(steps):
        for param, own in zip(params, grads, strict=True):
            param.grad = own[step]
        optimizer.step()
    assert optimizer.engine_report().startswith(engine)
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=0, atol=1e-9)
