"""Adam, Lion and LAMB as rules of this package."""

from __future__ import annotations

from typing import Any

import torch as xp

from torchopt_course import ElementwiseOptimizer


class Adam(ElementwiseOptimizer):
    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @staticmethod
    def coefficients(step: Any, lr: Any, betas: Any, eps: Any) -> Any:
        first, second = (1 - beta**step for beta in betas)
        numbers = {"mix": 1 - betas[0], "fresh": 1 - betas[1], "eps": eps}
        return {"size": lr / first, "unbias": second**-0.5, **numbers}

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, size: Any, unbias: Any, mix: Any, fresh: Any, eps: Any
    ) -> Any:
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        return p - size * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + eps), exp_avg, exp_avg_sq


class Lion(ElementwiseOptimizer):
    states = ("exp_avg",)

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @staticmethod
    def coefficients(lr: Any, betas: Any, weight_decay: Any) -> Any:
        return {"lr": lr, "mix": 1 - betas[0], "fresh": 1 - betas[1], "decay": lr * weight_decay}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any, decay: Any) -> Any:
        update = exp_avg + mix * (g - exp_avg)
        return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)


class LAMB(ElementwiseOptimizer):
    states = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @staticmethod
    def coefficients(step: Any, lr: Any, betas: Any, eps: Any, weight_decay: Any) -> Any:
        first, second = (1 - beta**step for beta in betas)
        numbers = {"mix": 1 - betas[0], "fresh": 1 - betas[1], "eps": eps, "decay": weight_decay}
        return {"lr": lr, "rescale": 1 / first, "unbias": second**-0.5, **numbers}

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any,
        lr: Any, rescale: Any, unbias: Any, mix: Any, fresh: Any, eps: Any, decay: Any,
    ) -> Any:  # fmt: skip
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        update = rescale * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + eps) + decay * p
        trust = xp.norm(p) / xp.norm(update)
        trust = xp.where((trust > 0) & xp.isfinite(trust), trust, 1.0)
        return p - lr * trust * update, exp_avg, exp_avg_sq
