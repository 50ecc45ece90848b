"""LARS: SGD for large batches, each tensor's step in proportion to its weights."""

import torch as xp

from torchopt_course import ElementwiseOptimizer


class LARS(ElementwiseOptimizer):
    """Momentum over gradients that are scaled to a fraction of the norm of their tensor.

    r = κ ‖θ‖ / (‖g‖ + λ ‖θ‖ + ε)                 1 where a norm is 0
    v ← β v + r (g + λ θ)
    θ ← θ - η v

    Source: You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017, arXiv:1708.03888
    """

    states = ("momentum_buffer",)

    def __init__(self, params, lr=1.0, momentum=0.9, weight_decay=1e-4, trust=1e-3, eps=1e-8):
        options = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust, eps=eps)
        super().__init__(params, options)

    @staticmethod
    def coefficients(lr, momentum, weight_decay, trust, eps):
        return dict(lr=lr, momentum=momentum, decay=weight_decay, trust=trust, eps=eps)

    @staticmethod
    def rule(p, g, momentum_buffer, lr, momentum, decay, trust, eps):
        of_p, of_g = xp.norm(p), xp.norm(g)
        ratio = xp.where((of_p > 0) & (of_g > 0), trust * of_p / (of_g + decay * of_p + eps), 1.0)
        momentum_buffer = momentum * momentum_buffer + ratio * (g + decay * p)
        return p - lr * momentum_buffer, momentum_buffer
