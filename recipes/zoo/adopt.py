"""ADOPT: Adam that divides by the scale of the steps before, and so converges with any β₂."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class ADOPT(ElementwiseOptimizer):
    """The gradient is divided before it is averaged, by a scale that does not know it yet.

    In the first step s ← g² and nothing moves; then, in step t,

    m ← β₁ m + (1 - β₁) clip(g / max(√s, ε), ± (t - 1)^¼)
    θ ← (1 - η λ) θ - η m
    s ← β₂ s + (1 - β₂) g²

    Source: Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate, 2024,
        arXiv:2411.02853
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.9999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @staticmethod
    def coefficients(step, first, lr, betas, eps, weight_decay):
        bound = None if first else (step - 1) ** 0.25
        return dict(
            lr=lr, mix=1 - betas[0], fresh=1 - betas[1], eps=eps, decay=lr * weight_decay, bound=bound
        )

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, lr, mix, fresh, eps, decay, bound):
        if bound is None:
            return p, exp_avg, g * g
        scaled = xp.clamp(g / xp.clamp(xp.sqrt(exp_avg_sq), min=eps), -bound, bound)
        exp_avg = exp_avg + mix * (scaled - exp_avg)
        return p - decay * p - lr * exp_avg, exp_avg, exp_avg_sq + fresh * (g * g - exp_avg_sq)
