"""Prodigy: Adam that finds its own learning rate, from how far all weights have come together."""

from torchopt_course import ElementwiseOptimizer, xp


class Prodigy(ElementwiseOptimizer):
    """Adam with decoupled decay, whose step size d is an estimate of the distance to the solution.

    r ← √β₂ r + d/d₀ η d ⟨g, θ₀ - θ⟩              of all weights together
    s ← √β₂ s + d/d₀ η d g
    m ← β₁ m + (1 - β₁) d g
    v ← β₂ v + (1 - β₂) d² g²
    d⁺ = max(d, r / ‖s‖₁)                         of all weights together
    θ ← θ - η d (m / (√v + d⁺ ε) + λ θ)
    d ← d⁺

    η stays 1, but for a schedule. The groups share d, so all of them take the same lr.

    Source: Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, 2023,
        arXiv:2306.06101
    """

    states = ("start", "s", "exp_avg", "exp_avg_sq")
    renews = ("d", "numerator")

    def __init__(self, params, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, d0=1e-6):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, d0=d0)
        super().__init__(params, options | dict(d=d0, numerator=0.0))

    def initial_state(self, name, param, group):
        return param.clone() if name == "start" else super().initial_state(name, param, group)

    @staticmethod
    def coefficients(lr, betas, eps, weight_decay, d0, d, numerator):
        return dict(
            size=d * lr, share=d / d0 * d * lr, keep=betas[0], keep_sq=betas[1], keep_s=betas[1] ** 0.5,
            fresh=d * (1 - betas[0]), fresh_sq=d * d * (1 - betas[1]), eps=eps, decay=weight_decay,
            d=d, numerator=numerator,
        )  # fmt: skip

    @staticmethod
    def rule(
        p, g, start, s, exp_avg, exp_avg_sq,
        size, share, keep, keep_sq, keep_s, fresh, fresh_sq, eps, decay, d, numerator,
    ):  # fmt: skip
        numerator = keep_s * numerator + share * xp.dot(g, start - p, over="all")
        s = keep_s * s + share * g
        exp_avg = keep * exp_avg + fresh * g
        exp_avg_sq = keep_sq * exp_avg_sq + fresh_sq * g * g
        distance = numerator / xp.norm(s, 1, over="all")
        d = xp.where(distance > d, distance, d)
        p = p - size * (exp_avg / (xp.sqrt(exp_avg_sq) + d * eps) + decay * p)
        return p, start, s, exp_avg, exp_avg_sq, d, numerator
