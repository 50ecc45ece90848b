"""Adam: momentum for the direction, RMSprop for the scale, and a correction for the cold start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as xp
from torch import Tensor, optim

from .elementwise import ElementwiseOptimizer
from .optimizer import Params, Rounding, StateDtype, Transforms, Value
from .validation import decay_rates, options_of, pair


# torch's class stands there for isinstance() of hosts such as Accelerate: all methods are ours.
class Adam(ElementwiseOptimizer, optim.Adam):
    r"""Adam, with AMSGrad and decoupled weight decay as options.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        s &\leftarrow \beta_2 s + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta
            - \eta \; \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \varepsilon}

    where :math:`g = \nabla f(\theta) + \lambda \theta`, or with decoupled weight decay
    :math:`g = \nabla f(\theta)` after :math:`\theta \leftarrow (1 - \eta \lambda) \theta`. AMSGrad puts the
    largest s so far in the place of s.

    Drop-in for :class:`torch.optim.Adam`.

    State: ``step`` (t, 0-d float), ``exp_avg`` (m), ``exp_avg_sq`` (s), ``max_exp_avg_sq`` (with AMSGrad),
    each like its parameter.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate η (default 1e-3), a float or a 1-element tensor.
        betas: β₁ and β₂ (default 0.9 and 0.999), two floats or two 1-element tensors.
        eps: ε, outside of the root (default 1e-8).
        weight_decay: λ (default 0), an L2 penalty unless decoupled.
        amsgrad: never let the scale shrink (default ``False``).
        maximize: ascend instead of descend (default ``False``).
        capturable: keep ``step`` with the parameter, for graph capture on an accelerator (default ``False``).
        decoupled_weight_decay: shrink the weights apart from the gradient, as AdamW (default ``False``).
        foreach, fused, differentiable: which engine, see :class:`ElementwiseOptimizer`.
        state_dtype, rounding: how states and 16-bit parameters are stored, see :class:`ElementwiseOptimizer`.
        transforms: what is done before and after the rule, see :mod:`torchopt_course.transforms`.

    Raises:
        ValueError: a negative number or NaN among the options, a β outside of [0, 1).

    Source: lecture, "Adam"; Kingma, Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015; Reddi,
    Kale, Kumar, *On the Convergence of Adam and Beyond*, ICLR 2018.
    """

    states = ("exp_avg", "exp_avg_sq")
    optional_states = {"max_exp_avg_sq": "amsgrad"}
    shrink = "keep"

    @staticmethod
    def rule(
        p: Value, g: Value, exp_avg: Value, exp_avg_sq: Value, max_exp_avg_sq: Value,
        step_size: Value, beta1: Value, one_minus_beta1: Value, beta2: Value, one_minus_beta2: Value,
        unbias: Value, eps: Value, l2: Value, keep: Value,
    ) -> Value:  # fmt: skip
        if keep is not None:
            p = keep * p
        if l2 is not None:
            g = g + l2 * p
        exp_avg = beta1 * exp_avg + one_minus_beta1 * g
        exp_avg_sq = beta2 * exp_avg_sq + one_minus_beta2 * g * g
        if max_exp_avg_sq is not None:
            max_exp_avg_sq = xp.maximum(max_exp_avg_sq, exp_avg_sq)
            scale = max_exp_avg_sq
        else:
            scale = exp_avg_sq
        p = p - step_size * exp_avg / (unbias * xp.sqrt(scale) + eps)
        return p, exp_avg, exp_avg_sq, max_exp_avg_sq

    @staticmethod
    def coefficients(
        step: Value, lr: Value, betas: tuple[Value, Value], eps: Value, weight_decay: Value,
        decoupled_weight_decay: bool,
    ) -> dict[str, Any]:  # fmt: skip
        beta1, beta2 = betas
        return {
            "step_size": lr / (1 - beta1**step),
            "beta1": beta1,
            "one_minus_beta1": 1 - beta1,
            "beta2": beta2,
            "one_minus_beta2": 1 - beta2,
            "unbias": (1 - beta2**step) ** -0.5,
            "eps": eps,
            "l2": None if decoupled_weight_decay else weight_decay or None,
            "keep": 1 - lr * weight_decay if decoupled_weight_decay and weight_decay else None,
        }

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        betas = pair(betas)
        # The first ones in the order of torch's groups.
        super().__init__(
            params, options_of(locals(), "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
        )

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        decay_rates(options["betas"])
        for name, value in {
            "lr": options["lr"],
            **{f"betas[{i}]": beta for i, beta in enumerate(pair(options["betas"]))},
        }.items():
            if isinstance(value, Tensor) and options["foreach"] and not options["capturable"]:
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
