"""Adan: Nesterov's momentum, estimated from how the gradient changes from step to step."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class Adan(ElementwiseOptimizer):
    """Averages of the gradient, of its change, and of the square of what the two foretell.

    m ← β₁ m + (1 - β₁) g
    v ← β₂ v + (1 - β₂) (g - g₋)                 g₋: the gradient of the step before; no change in the first
    n ← β₃ n + (1 - β₃) (g + β₂ (g - g₋))²
    θ ← (θ - η (m̂ + β₂ v̂) / (√n̂ + ε)) / (1 + η λ)

    Source: Xie et al., Adan: Adaptive Nesterov Momentum Algorithm, 2022, arXiv:2208.06677
    """

    states = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous")

    def __init__(self, params, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay):
        return dict(
            size=lr / (1 - betas[0] ** step), size_diff=lr * betas[1] / (1 - betas[1] ** step),
            unbias=(1 - betas[2] ** step) ** -0.5, mix=1 - betas[0], mix_diff=1 - betas[1],
            ahead=betas[1], fresh=1 - betas[2], eps=eps, shrink=1 + lr * weight_decay, later=1.0 * (step > 1),
        )  # fmt: skip

    @staticmethod
    def rule(
        p, g, exp_avg, exp_avg_diff, exp_avg_sq, previous,
        size, size_diff, unbias, mix, mix_diff, ahead, fresh, eps, shrink, later,
    ):  # fmt: skip
        diff = later * (g - previous)
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_diff = exp_avg_diff + mix_diff * (diff - exp_avg_diff)
        exp_avg_sq = exp_avg_sq + fresh * ((g + ahead * diff) ** 2 - exp_avg_sq)
        update = (size * exp_avg + size_diff * exp_avg_diff) / (unbias * xp.sqrt(exp_avg_sq) + eps)
        return (p - update) / shrink, exp_avg, exp_avg_diff, exp_avg_sq, g
