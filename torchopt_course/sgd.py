"""Gradient descent and momentum.

====================  ==========================  =====================================
gradient descent      gradient of the whole set   θ -= η ∇f(θ)
single-sample SGD     of one example              the same rule
mini-batch SGD        of a few examples           the same rule
momentum              of any of them              v = β v + ∇f(θ),  θ -= η v
====================  ==========================  =====================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, optim

from .elementwise import ElementwiseOptimizer
from .optimizer import Params, Rounding, StateDtype, Transforms, Value
from .validation import at_least_zero, options_of


# torch's class stands there for isinstance() of hosts such as Accelerate: all methods are ours.
class SGD(ElementwiseOptimizer, optim.SGD):
    r"""Stochastic gradient descent, with momentum if asked for.

    .. math::
        g &\leftarrow \nabla f(\theta) + \lambda \theta \\
        v &\leftarrow \beta v + (1 - \tau) g
            && \text{(momentum; } v = g \text{ in a parameter's first step)} \\
        \theta &\leftarrow \theta - \eta v
            && \text{(Nesterov: } \theta - \eta (g + \beta v) \text{; without momentum: } \theta - \eta g)

    Drop-in for :class:`torch.optim.SGD`. This is PyTorch's momentum: the learning rate stands outside of
    the velocity, so changing it acts at once on the whole velocity.

    State: ``momentum_buffer`` (the velocity v, like its parameter), only with momentum.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate η (default 1e-3), a float or a 1-element tensor.
        momentum: β (default 0: keep no velocity).
        dampening: τ (default 0).
        weight_decay: λ, the L2 penalty (default 0).
        nesterov: look ahead along the velocity (default ``False``); needs momentum and no dampening.
        maximize: ascend instead of descend (default ``False``).
        foreach, fused, differentiable: which engine, see :class:`ElementwiseOptimizer`.
        state_dtype, rounding: how states and 16-bit parameters are stored, see :class:`ElementwiseOptimizer`.
        transforms: what is done before and after the rule, see :mod:`torchopt_course.transforms`.

    Raises:
        ValueError: a negative ``lr``, ``momentum`` or ``weight_decay``, NaN, or Nesterov without momentum.

    Source: lecture, "Gradient descent" and "Momentum"; Sutskever et al., *On the importance of
    initialization and momentum in deep learning*, ICML 2013.
    """

    optional_states = {"momentum_buffer": "momentum"}

    @staticmethod
    def rule(
        p: Value,
        g: Value,
        momentum_buffer: Value,
        lr: Value,
        momentum: Value,
        fresh: Value,
        l2: Value,
        nesterov: bool,
    ) -> Value:
        if l2 is not None:
            g = g + l2 * p
        if momentum_buffer is not None:
            momentum_buffer = momentum * momentum_buffer + fresh * g
            g = g + momentum * momentum_buffer if nesterov else momentum_buffer
        return p - lr * g, momentum_buffer

    @staticmethod
    def coefficients(
        first: bool, lr: Value, momentum: Value, dampening: Value, weight_decay: Value, nesterov: bool
    ) -> dict[str, Any]:
        return {
            "lr": lr,
            "momentum": momentum,
            "fresh": 1.0 if first else 1 - dampening,
            "l2": weight_decay or None,
            "nesterov": bool(nesterov),
        }

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        super().__init__(params, options_of(locals()))

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        return "dense" if group["momentum"] or group["weight_decay"] else "rows"

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        momentum, dampening = options["momentum"], options["dampening"]
        at_least_zero("momentum value", momentum)
        if options["nesterov"] and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "Nesterov momentum requires a momentum and zero dampening, "
                f"got momentum={momentum}, dampening={dampening}"
            )


class Momentum(SGD):
    r"""Gradient descent with momentum: :class:`SGD` whose ``momentum`` is 0.9 unless told otherwise.

    .. math::
        v \leftarrow \beta v + \nabla f(\theta), \qquad \theta \leftarrow \theta - \eta v

    A velocity remembers the slopes passed so far: it carries over plateaus and small bumps, and the zigzag
    across a ravine cancels out. Everything else is as in :class:`SGD`; so are the checkpoints.

    Source: lecture, "Momentum"; Polyak, *Some methods of speeding up the convergence of iteration
    methods*, 1964.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        super().__init__(params, **options_of(locals()))
