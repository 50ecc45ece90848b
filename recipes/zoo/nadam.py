"""NAdam: Adam that looks ahead, as Nesterov's momentum does."""

from functools import lru_cache

import torch as xp

from torchopt_course import ElementwiseOptimizer


@lru_cache
def momentum_products(beta, decay):
    """μ₁, μ₁μ₂, μ₁μ₂μ₃, ... until 1 less them is 1 to the last digit."""
    products = [1.0]
    while products[-1] > 1e-18:
        products.append(products[-1] * beta * (1 - 0.5 * 0.96 ** (len(products) * decay)))
    return products


class NAdam(ElementwiseOptimizer):
    """The step goes along the momentum that the next step would have with this gradient.

    μₜ = β₁ (1 - ½ 0.96^(ψ t))
    m ← β₁ m + (1 - β₁) g
    s ← β₂ s + (1 - β₂) g²
    m̂ = μₜ₊₁ m / (1 - μ₁ ⋯ μₜ₊₁) + (1 - μₜ) g / (1 - μ₁ ⋯ μₜ)
    θ ← (1 - η λ) θ - η m̂ / (√ŝ + ε)

    Source: Dozat, Incorporating Nesterov Momentum into Adam, 2016, ICLR workshop
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        super().__init__(params, options)

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay, momentum_decay):
        now, ahead = (betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
        products = momentum_products(betas[0], momentum_decay)
        product = products[min(int(step), len(products) - 1)]
        return dict(
            along=lr * ahead / (1 - product * ahead), afresh=lr * (1 - now) / (1 - product),
            unbias=(1 - betas[1] ** step) ** -0.5, mix=1 - betas[0], fresh=1 - betas[1],
            eps=eps, decay=lr * weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, along, afresh, unbias, mix, fresh, eps, decay):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        p = p - decay * p - (along * exp_avg + afresh * g) / (unbias * xp.sqrt(exp_avg_sq) + eps)
        return p, exp_avg, exp_avg_sq
