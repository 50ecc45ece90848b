"""Lookahead: k steps forward, one step back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch as xp
from torch import Tensor

from ..validation.options import at_least_zero
from .transform import Transform, Value, copy_of


class lookahead(Transform):
    r"""Keep slow weights, which every k steps go a part of the way to the fast ones; these go on from there.

    .. math:: \phi \leftarrow \phi + \alpha (\theta - \phi), \quad \theta \leftarrow \phi
        \qquad \text{in each } k\text{-th step of a parameter}

    State: ``slow`` (φ, like its parameter), at first the parameter as it is before its first step.

    Args:
        lookahead_steps: k (default 5), an option of each group; 0 for none.
        lookahead_alpha: α (default 0.5), an option of each group.

    Raises:
        ValueError: k is no whole number or negative, α is outside of [0, 1].
        RuntimeError: ``capturable=True``: the host decides what a step does, and a captured one is repeated.

    Source: Zhang, Lucas, Hinton, Ba, *Lookahead Optimizer: k steps forward, 1 step back*, NeurIPS 2019.
    """

    optional_states = {"slow": "lookahead_steps"}

    def __init__(self, lookahead_steps: int = 5, lookahead_alpha: float = 0.5) -> None:
        super().__init__(lookahead_steps=lookahead_steps, lookahead_alpha=lookahead_alpha)

    @staticmethod
    def coefficients(step: Value, lookahead_steps: int, lookahead_alpha: Value) -> dict[str, Any]:
        # 0 in each k-th step and else 1: a number, so that one kernel and one program are for all steps.
        between = math.ceil(step % lookahead_steps / lookahead_steps) if lookahead_steps else None
        return {"alpha": lookahead_alpha, "between": between}

    @staticmethod
    def after(p: Value, new: Value, g: Value, slow: Value, alpha: Value, between: Value) -> Value:
        if between is None:
            return new, slow
        is_between = xp.full_like(p, between) > 0
        slow = xp.where(is_between, slow, slow + alpha * (new - slow))
        return xp.where(is_between, new, slow), slow

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        return copy_of(param)

    def check_options(self, options: Mapping[str, Any]) -> None:
        steps, alpha = options["lookahead_steps"], options["lookahead_alpha"]
        at_least_zero("lookahead_steps", steps)
        if steps != int(steps):
            raise ValueError(f"Invalid lookahead_steps: {steps} (expected a whole number)")
        at_least_zero("lookahead_alpha", alpha)
        if alpha > 1:
            raise ValueError(f"Invalid lookahead_alpha: {alpha} (expected a number in [0, 1])")
        if options.get("capturable") and steps:
            raise RuntimeError(
                "lookahead decides on the host what a step does, but with capturable=True one is repeated"
            )
