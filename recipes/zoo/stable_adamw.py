"""StableAdamW: AdamW that shortens the step of a tensor whose gradients are larger than it has known."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class StableAdamW(ElementwiseOptimizer):
    """AdamW with Adafactor's clipping: where g² is far above its average, s is out of date.

    m ← β̂₁ m + (1 - β̂₁) g                         β̂ = (β - βᵗ) / (1 - βᵗ): no correction is needed later
    s ← β̂₂ s + (1 - β̂₂) g²
    r = √mean(g² / max(s, ε²))                    one number for the tensor
    θ ← θ - η / max(1, r) (m / (√s + ε) + λ θ)

    Source: Wortsman et al., Stable and Low-Precision Training for Large-Scale Vision-Language Models,
        2023, arXiv:2304.13013
    """

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay):
        mix, fresh = ((1 - beta) / (1 - beta**step) for beta in betas)
        return dict(lr=lr, mix=mix, fresh=fresh, eps=eps, least=eps**2, decay=weight_decay)

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, lr, mix, fresh, eps, least, decay):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        surprise = xp.sqrt(xp.mean(g * g / xp.clamp(exp_avg_sq, min=least)))
        size = lr / xp.clamp(surprise, min=1.0)
        return p - size * (exp_avg / (xp.sqrt(exp_avg_sq) + eps) + decay * p), exp_avg, exp_avg_sq
