"""Muon: the momentum of a matrix, with all its singular values made alike."""

from math import sqrt

import torch

from torchopt_course import TensorOptimizer
from torchopt_course.validation import at_least_zero

SIZES = {
    None: lambda rows, columns: sqrt(max(1, rows / columns)),
    "original": lambda rows, columns: sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: sqrt(rows / columns),
}


class Muon(TensorOptimizer):
    """For matrices only; ``Mixed`` gives the rest to another.

    B ← μ B + (1 - μ) G
    U = (1 - μ) G + μ B = P Σ Qᵀ                  B itself without `nesterov`
    θ ← (1 - η λ) θ - η √max(1, n / m) P Qᵀ       θ is n x m

    P Qᵀ comes from five steps of a Newton-Schulz iteration in bfloat16, X ← a X + (b X Xᵀ + c (X Xᵀ)²) X,
    which brings the singular values to between 0.7 and 1.2. Matrices of one shape are taken together, one
    batched product for all. Names, defaults and states are those of ``torch.optim.Muon``; `adjust_lr_fn`
    says what stands in the place of the root.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon/
    """

    states = ("momentum_buffer",)
    stacked = True

    def __init__(
        self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True,
        ns_coefficients=(3.4445, -4.7750, 2.0315), eps=1e-7, ns_steps=5, adjust_lr_fn=None,
    ):  # fmt: skip
        newton_schulz = dict(ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps)
        options = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
        super().__init__(params, options | newton_schulz | dict(adjust_lr_fn=adjust_lr_fn))

    def check_options(self, options):
        super().check_options(options)
        at_least_zero("momentum", options["momentum"])
        if options["adjust_lr_fn"] not in SIZES:
            expected = ", ".join(map(repr, SIZES))
            raise ValueError(f"adjust_lr_fn is {options['adjust_lr_fn']!r}, expected one of {expected}")
        if not 0 <= options["ns_steps"] < 100:
            raise ValueError(f"ns_steps is {options['ns_steps']}, expected 0 to 99")

    def why_not(self, param):
        wrong = f"it has the shape {tuple(param.shape)}, expected a matrix" if param.dim() != 2 else None
        return super().why_not(param) or wrong

    @staticmethod
    def coefficients(lr, weight_decay, momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn):
        return dict(
            lr=lr, decay=lr * weight_decay, momentum=momentum, nesterov=nesterov,
            polynomial=ns_coefficients, eps=eps, times=ns_steps, size=SIZES[adjust_lr_fn],
        )  # fmt: skip

    @staticmethod
    def rule(p, g, momentum_buffer, lr, decay, momentum, nesterov, polynomial, eps, times, size):
        # All that is given are copies: what ends in _ writes over them.
        momentum_buffer.lerp_(g, 1 - momentum)
        update = g.lerp_(momentum_buffer, momentum) if nesterov else momentum_buffer
        update = orthogonal(update, polynomial, times, eps).to(p.dtype)
        rows, columns = (max(1, n) for n in p.shape[-2:])
        return p.mul_(1 - decay).sub_(update, alpha=lr * size(rows, columns)), momentum_buffer


def orthogonal(matrices, polynomial, times, eps):
    """Matrices (n, rows, columns) with about the same singular vectors and singular values of about 1."""
    a, b, c = polynomial
    x = matrices.bfloat16()
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(times):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
