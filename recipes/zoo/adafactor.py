r"""Adafactor: of a matrix's squared gradients only the means of rows and columns are kept.

$$
\begin{aligned}
R &\leftarrow \beta R + (1 - \beta)\, \overline{G^2}^{\,\text{rows}}, \qquad
C \leftarrow \beta C + (1 - \beta)\, \overline{G^2}^{\,\text{columns}}, \qquad \beta = 1 - t^{-0.8} \\
U &= G \Big/ \sqrt{R\, C \,/\, \overline{R}}, \qquad
\theta \leftarrow \theta - \max(\epsilon_2, \text{RMS}(\theta))\, \min(\eta, 1/\sqrt{t})\;
U \,/ \max(1, \text{RMS}(U) / d)
\end{aligned}
$$

Shazeer, Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
For n x m weights the states are n + m numbers, where Adam keeps 2 n m. Names, defaults, states and the places
of the two epsilons are those of ``torch.optim.Adafactor``: checkpoints go from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchopt_course import TensorOptimizer
from torchopt_course.validation import at_least_zero


class Adafactor(TensorOptimizer):
    """Adafactor with the options of ``torch.optim.Adafactor``.

    Args:
        params: parameters or groups of them; matrices (and stacks of them, along the last two dimensions) are
            factored, vectors and numbers are not.
        lr: the largest relative step, and the unit of the weight decay.
        beta2_decay: the exponent of the decay, <= 0.
        eps: what is the least of the mean square (``None``: the dtype's own), and of the parameter's RMS.
        d: the largest RMS of an update, >= 1.
        weight_decay: decoupled decay.

    Raises:
        ValueError: an option out of range.
    """

    states = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "maximize": maximize})

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        at_least_zero("minus beta2_decay", -options["beta2_decay"])
        at_least_zero("epsilon1", options["eps"][0] or 0.0)
        at_least_zero("epsilon2", options["eps"][1])
        at_least_zero("clipping threshold d - 1", options["d"] - 1)

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        rows, columns = (*param.shape[:-1], 1), (*param.shape[:-2], 1, *param.shape[-1:])
        shapes = {"row_var": rows, "col_var": columns} if param.dim() > 1 else {"variance": param.shape}
        return param.detach().new_zeros(shapes[name]) if name in shapes else None

    @staticmethod
    def coefficients(step: Any, lr: Any, beta2_decay: Any, eps: Any, d: Any, weight_decay: Any) -> Any:
        return {
            "rho": min(lr, 1 / math.sqrt(step)),
            "fresh": step**beta2_decay,
            "least": eps[0],
            "least_rms": eps[1],
            "d": d,
            "decay": lr * weight_decay,
        }

    @staticmethod
    def rule(
        p: Any, g: Any, row_var: Any, col_var: Any, variance: Any,
        rho: Any, fresh: Any, least: Any, least_rms: Any, d: Any, decay: Any,
    ) -> Any:  # fmt: skip
        least = torch.finfo(p.dtype).eps if least is None else least
        square = g * g
        if variance is None:
            row_var = row_var.lerp(square.mean(dim=-1, keepdim=True), fresh)
            col_var = col_var.lerp(square.mean(dim=-2, keepdim=True), fresh)
            estimate = row_var * col_var / row_var.mean(dim=-2, keepdim=True).clamp(min=least)
        else:
            estimate = variance = variance.lerp(square, fresh)
        update = g / estimate.clamp(min=least * least).sqrt()
        size = rho * rms(p).clamp(min=least_rms) / (rms(update) / d).clamp(min=1)
        return p - decay * p - size * update, row_var, col_var, variance


def rms(x: Tensor) -> Tensor:
    """The square root of the mean square."""
    norm: Tensor = x.norm()
    return norm / math.sqrt(max(1, x.numel()))
