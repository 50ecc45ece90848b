r"""Muon: the momentum of a matrix, with all its singular values made alike.

$$
\begin{aligned}
B &\leftarrow \mu B + (1 - \mu)\, G, \qquad
U = (1 - \mu)\, G + \mu B = P\, \Sigma\, Q^\top \\
W &\leftarrow W - \eta \lambda W - \eta \sqrt{\max(1, n / m)}\; P Q^\top
\end{aligned}
$$

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/. P Qᵀ comes from five steps of a Newton-Schulz iteration in
bfloat16, which brings the singular values to between 0.7 and 1.2. Matrices of one shape are taken
together, one batched product for all. Names, defaults and states are those of ``torch.optim.Muon``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchopt_course import TensorOptimizer
from torchopt_course.validation import at_least_zero

_SIZES = {
    None: lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}


class Muon(TensorOptimizer):
    """Muon with the options of ``torch.optim.Muon``, for matrices; for the rest see ``Mixed``.

    Args:
        params: parameters or groups of them, each with two dimensions.
        lr: the step, in the unit of a matrix whose singular values are 1.
        weight_decay: decoupled decay.
        momentum: how much of the momentum is kept.
        nesterov: whether the gradient is mixed in once more.
        ns_coefficients: of the polynomial a x + b x³ + c x⁵.
        eps: the least norm that a matrix is divided by.
        ns_steps: how often the polynomial is applied, less than 100.
        adjust_lr_fn: how the step depends on the shape: ``"original"`` (also ``None``), as above;
            ``"match_rms_adamw"``, so that AdamW's rates fit; ``"spectral_unclamped"``.

    Raises:
        ValueError: an option out of range, a parameter that is no matrix.
    """

    states = ("momentum_buffer",)
    stacked = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        newton_schulz = {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps}
        super().__init__(params, {**defaults, **newton_schulz, "adjust_lr_fn": adjust_lr_fn})

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        at_least_zero("momentum", options["momentum"])
        if options["adjust_lr_fn"] not in _SIZES:
            expected = ", ".join(map(repr, _SIZES))
            raise ValueError(f"adjust_lr_fn is {options['adjust_lr_fn']!r}, expected one of {expected}")
        if not 0 <= options["ns_steps"] < 100:
            raise ValueError(f"ns_steps is {options['ns_steps']}, expected 0 to 99")

    def why_not(self, param: Tensor) -> str | None:
        wrong = f"it has the shape {tuple(param.shape)}, expected a matrix" if param.dim() != 2 else None
        return super().why_not(param) or wrong

    @staticmethod
    def coefficients(
        lr: Any, weight_decay: Any, momentum: Any, nesterov: Any,
        ns_coefficients: Any, eps: Any, ns_steps: Any, adjust_lr_fn: Any,
    ) -> Any:  # fmt: skip
        return {
            "lr": lr,
            "decay": lr * weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "polynomial": ns_coefficients,
            "eps": eps,
            "times": ns_steps,
            "size": _SIZES[adjust_lr_fn],
        }

    @staticmethod
    def rule(
        p: Any, g: Any, momentum_buffer: Any, lr: Any, decay: Any, momentum: Any, nesterov: Any,
        polynomial: Any, eps: Any, times: Any, size: Any,
    ) -> Any:  # fmt: skip
        momentum_buffer = momentum_buffer.lerp(g, 1 - momentum)
        update = g.lerp(momentum_buffer, momentum) if nesterov else momentum_buffer
        update = orthogonal(update, polynomial, times, eps).to(p.dtype)
        return p - decay * p - lr * size(*p.shape[-2:]) * update, momentum_buffer


def orthogonal(matrices: Tensor, polynomial: tuple[float, float, float], times: int, eps: float) -> Tensor:
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
