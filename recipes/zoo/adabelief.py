"""AdaBelief: Adam whose scale is how far the gradient strays from its own average."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class AdaBelief(ElementwiseOptimizer):
    """Large steps where the gradient is as expected, small ones where it surprises.

    m ← β₁ m + (1 - β₁) g
    s ← β₂ s + (1 - β₂) (g - m)² + ε
    θ ← (1 - η λ) θ - η m̂ / (√ŝ + ε)

    Source: Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients,
        2020, arXiv:2010.07468
    """

    states = ("exp_avg", "exp_avg_var")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-16, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay):
        return dict(
            size=lr / (1 - betas[0] ** step), unbias=(1 - betas[1] ** step) ** -0.5,
            mix=1 - betas[0], fresh=1 - betas[1], eps=eps, decay=lr * weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_var, size, unbias, mix, fresh, eps, decay):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_var = exp_avg_var + fresh * ((g - exp_avg) ** 2 - exp_avg_var) + eps
        p = p - decay * p - size * exp_avg / (unbias * xp.sqrt(exp_avg_var) + eps)
        return p, exp_avg, exp_avg_var
