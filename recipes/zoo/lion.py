"""Lion: only the sign of a momentum, so every weight moves by the same amount."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class Lion(ElementwiseOptimizer):
    """Update and momentum mix the gradient in at different rates; one state, half of Adam's memory.

    u = β₁ m + (1 - β₁) g
    m ← β₂ m + (1 - β₂) g
    θ ← θ - η (sign u + λ θ)

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, arXiv:2302.06675
    """

    states = ("exp_avg",)

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @staticmethod
    def coefficients(lr, betas, weight_decay):
        return dict(lr=lr, mix=1 - betas[0], fresh=1 - betas[1], decay=lr * weight_decay)

    @staticmethod
    def rule(p, g, exp_avg, lr, mix, fresh, decay):
        update = exp_avg + mix * (g - exp_avg)
        return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)
