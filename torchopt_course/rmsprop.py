"""RMSprop: Adagrad that forgets, so that the step size need not shrink for ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as xp
from torch import Tensor, optim

from .elementwise import ElementwiseOptimizer
from .optimizer import Params, Rounding, StateDtype, Transforms, Value
from .validation import at_least_zero, options_of


# torch's class stands there for isinstance() of hosts such as Accelerate: all methods are ours.
class RMSprop(ElementwiseOptimizer, optim.RMSprop):
    r"""RMSprop: divide by the root of a running mean of the squared gradients.

    .. math::
        g &\leftarrow \nabla f(\theta) + \lambda \theta \\
        s &\leftarrow \alpha s + (1 - \alpha) g^2 \\
        \theta &\leftarrow \theta - \eta \; \frac{g}{\sqrt{s} + \varepsilon}

    Centered, the running mean m of the gradients is taken off: :math:`\sqrt{s - m^2}`, an estimate of the
    gradient's standard deviation. With momentum, the quotient feeds a velocity: :math:`v \leftarrow \beta v
    + g / (\sqrt{s} + \varepsilon)` and :math:`\theta \leftarrow \theta - \eta v`.

    Drop-in for :class:`torch.optim.RMSprop`, which has no fused version.

    State: ``step`` (0-d float), ``square_avg`` (s), ``momentum_buffer`` (v, with momentum), ``grad_avg``
    (m, if centered), each like its parameter.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate η (default 1e-2), a float or a 1-element tensor.
        alpha: α, how slowly squared gradients are forgotten (default 0.99).
        eps: ε, outside of the root (default 1e-8).
        weight_decay: λ, the L2 penalty (default 0).
        momentum: β (default 0: no velocity).
        centered: divide by the standard deviation instead of the root mean square (default ``False``).
        capturable: keep ``step`` with the parameter, for graph capture on an accelerator (default ``False``).
        maximize: ascend instead of descend (default ``False``).
        foreach, fused, differentiable: which engine, see :class:`ElementwiseOptimizer`.
        state_dtype, rounding: how states and 16-bit parameters are stored, see :class:`ElementwiseOptimizer`.
        transforms: what is done before and after the rule, see :mod:`torchopt_course.transforms`.

    Raises:
        ValueError: a negative number or NaN among the options.

    Source: lecture, "RMSProp"; Hinton, *Neural networks for machine learning*, lecture 6e, 2012; centered:
    Graves, *Generating sequences with recurrent neural networks*, 2013.
    """

    states = ("square_avg",)
    optional_states = {"momentum_buffer": "momentum", "grad_avg": "centered"}

    @staticmethod
    def rule(
        p: Value, g: Value, square_avg: Value, momentum_buffer: Value, grad_avg: Value,
        lr: Value, alpha: Value, one_minus_alpha: Value, eps: Value, l2: Value, momentum: Value,
    ) -> Value:  # fmt: skip
        if l2 is not None:
            g = g + l2 * p
        square_avg = alpha * square_avg + one_minus_alpha * g * g
        if grad_avg is not None:
            grad_avg = grad_avg + one_minus_alpha * (g - grad_avg)
            spread = square_avg - grad_avg * grad_avg
        else:
            spread = square_avg
        direction = g / (xp.sqrt(spread) + eps)
        if momentum_buffer is not None:
            momentum_buffer = momentum * momentum_buffer + direction
            direction = momentum_buffer
        return p - lr * direction, square_avg, momentum_buffer, grad_avg

    @staticmethod
    def coefficients(
        step: Value, lr: Value, alpha: Value, eps: Value, weight_decay: Value, momentum: Value
    ) -> dict[str, Any]:
        return {
            "lr": lr,
            "alpha": alpha,
            "one_minus_alpha": 1 - alpha,
            "eps": eps,
            "l2": weight_decay or None,
            "momentum": momentum,
        }

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        # The first ones in the order of torch's groups.
        super().__init__(params, options_of(locals(), "lr", "momentum", "alpha", "eps", "centered"))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of the base, but without ``fused`` if it was not given: torch's RMSprop has no such option."""
        super().add_param_group(param_group)
        for options in (self.defaults, self.param_groups[-1]):
            if options.get("fused") is None:
                options.pop("fused", None)

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        at_least_zero("alpha value", options["alpha"])
        at_least_zero("momentum value", options["momentum"])
