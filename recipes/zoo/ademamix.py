"""AdEMAMix: a second momentum that remembers for thousands of steps."""

from math import exp, log

import torch as xp

from torchopt_course import ElementwiseOptimizer


class AdEMAMix(ElementwiseOptimizer):
    """Adam plus a slow average of the gradient; both its weight and its memory grow over the first steps.

    m ← β₁ m + (1 - β₁) g
    l ← β₃(t) l + (1 - β₃(t)) g
    s ← β₂ s + (1 - β₂) g²
    θ ← θ - η ((m̂ + α(t) l) / (√ŝ + ε) + λ θ)

    With `warmup` T, α(t) = α min(t / T, 1), and β₃(t) goes from β₁ to β₃ so that the memory grows linearly.

    Source: Pagliardini, Ablin, Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024,
        arXiv:2409.03137
    """

    states = ("exp_avg", "exp_avg_slow", "exp_avg_sq")

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, warmup=0, eps=1e-8, weight_decay=0.0
    ):
        options = dict(lr=lr, betas=betas, alpha=alpha, warmup=warmup, eps=eps, weight_decay=weight_decay)
        super().__init__(params, options)

    @staticmethod
    def coefficients(step, lr, betas, alpha, warmup, eps, weight_decay):
        beta1, beta2, beta3 = betas
        done = step / warmup if step < warmup else 1.0
        slow = beta3
        if done < 1:
            slow = min(beta3, exp(log(beta1) * log(beta3) / ((1 - done) * log(beta3) + done * log(beta1))))
        return dict(
            size=lr / (1 - beta1**step), size_slow=lr * alpha * done, unbias=(1 - beta2**step) ** -0.5,
            mix=1 - beta1, mix_slow=1 - slow, fresh=1 - beta2, eps=eps, decay=lr * weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(
        p, g, exp_avg, exp_avg_slow, exp_avg_sq, size, size_slow, unbias, mix, mix_slow, fresh, eps, decay
    ):
        exp_avg = exp_avg + mix * (g - exp_avg)
        exp_avg_slow = exp_avg_slow + mix_slow * (g - exp_avg_slow)
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        update = (size * exp_avg + size_slow * exp_avg_slow) / (unbias * xp.sqrt(exp_avg_sq) + eps)
        return p - decay * p - update, exp_avg, exp_avg_slow, exp_avg_sq
