"""Yogi: Adam whose scale grows and shrinks by small amounts only."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class Yogi(ElementwiseOptimizer):
    """Adam's scale falls fast after a large gradient, and steps grow; this one moves by (1 - β₂) g² at most.

    m ← β₁ m + (1 - β₁) g
    s ← s - (1 - β₂) sign(s - g²) g²              m and s begin at 10⁻⁶
    θ ← (1 - η λ) θ - η m̂ / (√ŝ + ε)

    Source: Zaheer et al., Adaptive Methods for Nonconvex Optimization, 2018, NeurIPS
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def initial_state(self, name, param, group):
        return super().initial_state(name, param, group).fill_(1e-6)

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay):
        return dict(
            size=lr / (1 - betas[0] ** step), unbias=(1 - betas[1] ** step) ** -0.5,
            mix=1 - betas[0], fresh=1 - betas[1], eps=eps, decay=lr * weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, size, unbias, mix, fresh, eps, decay):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq - fresh * xp.sign(exp_avg_sq - g * g) * g * g
        p = p - decay * p - size * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + eps)
        return p, exp_avg, exp_avg_sq
