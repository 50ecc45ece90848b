"""MADGRAD: dual averaging, with the cube root where Adagrad has the square root."""

from torchopt_course import ElementwiseOptimizer


class MADGRAD(ElementwiseOptimizer):
    """Every step is counted from where training began, θ₀: what is averaged is the point, not the gradient.

    s ← s + η √t g
    v ← v + η √t g²
    θ ← β θ + (1 - β) (θ₀ - s / (∛v + ε))

    Source: Defazio, Jelassi, Adaptivity without Compromise, 2021, arXiv:2101.11075
    """

    states = ("start", "grad_sum", "grad_sum_sq")

    def __init__(self, params, lr=1e-2, momentum=0.9, eps=1e-6):
        super().__init__(params, dict(lr=lr, momentum=momentum, eps=eps))

    def initial_state(self, name, param, group):
        return param.clone() if name == "start" else super().initial_state(name, param, group)

    @staticmethod
    def coefficients(step, lr, momentum, eps):
        return dict(weight=lr * step**0.5, mix=1 - momentum, eps=eps)

    @staticmethod
    def rule(p, g, start, grad_sum, grad_sum_sq, weight, mix, eps):
        grad_sum = grad_sum + weight * g
        grad_sum_sq = grad_sum_sq + weight * g * g
        target = start - grad_sum / (grad_sum_sq ** (1 / 3) + eps)
        return p + mix * (target - p), start, grad_sum, grad_sum_sq
