"""Gradients cut to a size: each number by itself, or a tensor as a whole, its direction kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engines.rule.namespace import XP as xp
from ..validation.options import at_least_zero
from .transform import Transform, Value

# As in torch.nn.utils.clip_grad_norm_: what is added to a norm, lest one of zero be divided by.
NORM_EPS = 1e-6


class clip_value(Transform):
    r"""Cut each element of the gradient to an interval.

    .. math:: g \leftarrow \min(\max(g, -c), c)

    As :func:`torch.nn.utils.clip_grad_value_`, but ``p.grad`` stays as it is.

    Args:
        clip_value: c, an option of each group; infinity for no clipping.

    Raises:
        ValueError: it is negative or NaN.
    """

    def __init__(self, clip_value: float) -> None:
        super().__init__(clip_value=clip_value)

    @staticmethod
    def before(p: Value, g: Value, clip_value: Value) -> Value:
        return xp.clamp(g, -clip_value, clip_value)

    def check_options(self, options: Mapping[str, Any]) -> None:
        at_least_zero("clip_value", options["clip_value"])


class clip_norm(Transform):
    r"""Shorten the gradient of each parameter to a length, by itself.

    .. math:: g \leftarrow g \; \min\left(1, \frac{c}{\lVert g \rVert_2 + 10^{-6}}\right)

    As :func:`torch.nn.utils.clip_grad_norm_` called for each parameter alone; for the norm of all together
    see :class:`clip_global_norm`. A gradient with an infinite or undefined norm becomes NaN where it is not
    finite, as there: :class:`skip_nonfinite` leaves such steps out.

    Args:
        max_norm: c, an option of each group; infinity for no clipping.

    Raises:
        ValueError: it is negative or NaN.
    """

    def __init__(self, max_norm: float) -> None:
        super().__init__(max_norm=max_norm)

    @staticmethod
    def before(p: Value, g: Value, max_norm: Value) -> Value:
        return g * xp.clamp(max_norm / (xp.norm(g) + NORM_EPS), max=1.0)

    def check_options(self, options: Mapping[str, Any]) -> None:
        at_least_zero("max_norm", options["max_norm"])


class clip_global_norm(Transform):
    r"""Shorten all gradients together to a length.

    .. math:: g \leftarrow g \; \min\left(1, \frac{c}{\lVert g_\text{all} \rVert_2 + 10^{-6}}\right)

    with the norm of all gradients that the optimizer steps with, as if they were one vector. As
    :func:`torch.nn.utils.clip_grad_norm_`, but ``p.grad`` stays as it is. Each group may have a c of its own;
    the norm is of all groups. In :class:`Mixed` it is of all parameters with the same class.

    Args:
        max_global_norm: c, an option of each group; infinity for no clipping.

    Raises:
        ValueError: it is negative or NaN.
    """

    def __init__(self, max_global_norm: float) -> None:
        super().__init__(max_global_norm=max_global_norm)

    @staticmethod
    def before(p: Value, g: Value, max_global_norm: Value) -> Value:
        return g * xp.clamp(max_global_norm / (xp.norm(g, over="all") + NORM_EPS), max=1.0)

    def check_options(self, options: Mapping[str, Any]) -> None:
        at_least_zero("max_global_norm", options["max_global_norm"])
