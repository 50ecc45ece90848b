"""Adafactor: of a matrix's squared gradients only the means of rows and columns are kept."""

import math

import torch

from torchopt_course import TensorOptimizer
from torchopt_course.validation import at_least_zero


class Adafactor(TensorOptimizer):
    """For n x m weights the states are n + m numbers, where Adam keeps 2 n m; steps in units of the weights.

    R ← β R + (1 - β) mean of G² along rows       β = 1 - t^-0.8
    C ← β C + (1 - β) mean of G² along columns
    U = G / √(R C / mean of R)
    θ ← (1 - η λ) θ - max(ε₂, RMS(θ)) min(η, 1 / √t) U / max(1, RMS(U) / d)

    Stacks of matrices are taken along their last two dimensions; of vectors all squares are kept. Names,
    defaults, states and the places of the two ε are those of ``torch.optim.Adafactor``, and checkpoints go
    from one to the other.

    Source: Shazeer, Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018,
        arXiv:1804.04235
    """

    states = ("row_var", "col_var", "variance")

    def __init__(
        self, params, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, *, maximize=False
    ):
        options = dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay)
        super().__init__(params, options | dict(maximize=maximize))

    def check_options(self, options):
        super().check_options(options)
        at_least_zero("minus beta2_decay", -options["beta2_decay"])
        at_least_zero("epsilon1", options["eps"][0] or 0.0)
        at_least_zero("epsilon2", options["eps"][1])
        at_least_zero("clipping threshold d - 1", options["d"] - 1)

    def initial_state(self, name, param, group):
        rows, columns = (*param.shape[:-1], 1), (*param.shape[:-2], 1, *param.shape[-1:])
        shapes = dict(row_var=rows, col_var=columns) if param.dim() > 1 else dict(variance=param.shape)
        return param.detach().new_zeros(shapes[name]) if name in shapes else None

    @staticmethod
    def coefficients(step, lr, beta2_decay, eps, d, weight_decay):
        return dict(
            rho=min(lr, 1 / math.sqrt(step)), fresh=step**beta2_decay, least=eps[0], least_rms=eps[1], d=d,
            decay=lr * weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, row_var, col_var, variance, rho, fresh, least, least_rms, d, decay):
        # All that is given are copies: what ends in _ writes over them, which saves a matrix each time.
        least = torch.finfo(p.dtype).eps if least is None else least
        square = g * g
        if variance is None:
            row_var = row_var.lerp(square.mean(dim=-1, keepdim=True), fresh)
            col_var = col_var.lerp(square.mean(dim=-2, keepdim=True), fresh)
            estimate = row_var * (col_var / row_var.mean(dim=-2, keepdim=True).clamp(min=least))
        else:
            variance = variance.lerp(square, fresh)
            estimate = variance.clone()
        update = g.div_(estimate.clamp_(min=least * least).sqrt_())
        size = rho * rms(p).clamp(min=least_rms) / (rms(update) / d).clamp(min=1)
        return p.mul_(1 - decay).addcmul_(update, size, value=-1), row_var, col_var, variance


def rms(x):
    """The square root of the mean square; 0 of nothing."""
    return x.norm() / math.sqrt(max(1, x.numel()))
