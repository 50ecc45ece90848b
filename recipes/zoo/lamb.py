"""LAMB: Adam for large batches, each tensor's step as long as its weights allow."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class LAMB(ElementwiseOptimizer):
    """Adam's direction with decay, times the ratio of two norms of the whole tensor.

    m ← β₁ m + (1 - β₁) g
    s ← β₂ s + (1 - β₂) g²
    u = m̂ / (√ŝ + ε) + λ θ
    θ ← θ - η u ‖θ‖ / ‖u‖                         without the ratio where a norm is 0

    Source: You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes, 2019,
        arXiv:1904.00962
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay):
        return dict(
            lr=lr, rescale=1 / (1 - betas[0] ** step), unbias=(1 - betas[1] ** step) ** -0.5,
            mix=1 - betas[0], fresh=1 - betas[1], eps=eps, decay=weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, lr, rescale, unbias, mix, fresh, eps, decay):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        u = rescale * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + eps) + decay * p
        trust = xp.norm(p) / xp.norm(u)
        trust = xp.where((trust > 0) & xp.isfinite(trust), trust, 1.0)
        return p - lr * trust * u, exp_avg, exp_avg_sq
