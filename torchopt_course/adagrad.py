"""Adagrad: each weight has a learning rate of its own, the smaller the more it has already moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch as xp
from torch import Tensor, optim

from .elementwise import ElementwiseOptimizer
from .optimizer import Params, Rounding, StateDtype, Transforms, Value
from .validation import at_least_zero, options_of


# torch's class stands there for isinstance() of hosts such as Accelerate: all methods are ours.
class Adagrad(ElementwiseOptimizer, optim.Adagrad):
    r"""Adagrad: divide by the root of the sum of all squared gradients so far.

    .. math::
        g &\leftarrow \nabla f(\theta) + \lambda \theta \\
        s &\leftarrow s + g^2 \\
        \theta &\leftarrow \theta - \frac{\eta}{1 + (t - 1)\,\kappa} \; \frac{g}{\sqrt{s} + \varepsilon}

    Drop-in for :class:`torch.optim.Adagrad`. Rare features keep a large step, frequent ones a small one.
    A parameter group's own ``initial_accumulator_value`` counts (torch ignores it).

    State, from construction on: ``step`` (t, 0-d float), ``sum`` (s, like its parameter).

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate η (default 1e-2), a float or a 1-element tensor.
        lr_decay: κ (default 0).
        weight_decay: λ, the L2 penalty (default 0).
        initial_accumulator_value: s before the first step (default 0).
        eps: ε, outside of the root (default 1e-10).
        maximize: ascend instead of descend (default ``False``).
        foreach, fused, differentiable: which engine, see :class:`ElementwiseOptimizer`.
        state_dtype, rounding: how states and 16-bit parameters are stored, see :class:`ElementwiseOptimizer`.
        transforms: what is done before and after the rule, see :mod:`torchopt_course.transforms`.

    Raises:
        ValueError: a negative number or NaN among the options.

    Source: lecture, "Adagrad"; Duchi, Hazan, Singer, *Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization*, JMLR 12, 2011.
    """

    states = ("sum",)

    @staticmethod
    def rule(p: Value, g: Value, sum: Value, lr: Value, l2: Value, eps: Value) -> Value:
        if l2 is not None:
            g = g + l2 * p
        sum = sum + g * g
        return p - lr * g / (xp.sqrt(sum) + eps), sum

    @staticmethod
    def coefficients(
        step: Value, lr: Value, lr_decay: Value, weight_decay: Value, eps: Value
    ) -> dict[str, Any]:
        return {"lr": lr / (1 + (step - 1) * lr_decay), "l2": weight_decay or None, "eps": eps}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        # The first ones in the order of torch's groups.
        super().__init__(params, options_of(locals(), "lr", "lr_decay", "eps"))
        for group in self.param_groups:
            for param in group["params"]:
                self.complete_state(param, group)

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        value = float(group["initial_accumulator_value"])
        fill = complex(value, value) if param.is_complex() else value
        return torch.full_like(param, fill, memory_format=torch.preserve_format, requires_grad=False)

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        if group["weight_decay"]:
            raise RuntimeError(
                f"weight_decay={group['weight_decay']} is not compatible with sparse gradients: "
                "it would touch every weight"
            )
        return "rows"

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        at_least_zero("lr_decay value", options["lr_decay"])
        at_least_zero("initial_accumulator_value value", options["initial_accumulator_value"])

    def share_memory(self) -> None:
        """Move the sums, however they are stored, into shared memory, for training from several processes."""
        for state in self.state.values():
            for name, tensor in state.items():
                if name != "step":  # as in torch: each process counts its own
                    tensor.share_memory_()
