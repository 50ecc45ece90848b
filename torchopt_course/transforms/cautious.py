"""Cautious updates: a weight moves only where its update and its gradient agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as xp

from ..validation.options import at_least_zero
from .transform import Transform, Value


class cautious(Transform):
    r"""Leave out what an update does against the gradient, and enlarge the rest.

    .. math:: \Delta\theta \leftarrow \frac{m \; \Delta\theta}{\max(\operatorname{mean}(m), \varepsilon)},
        \qquad m = [\Delta\theta \cdot g < 0]

    where Δθ is what the rule adds to a tensor of weights, and the mean is over its elements: the share of
    those that agree. As with the authors, decoupled weight decay of ``Adam`` and ``AdamW`` is not masked. In
    another optimizer that decays weights in its rule all that it does is masked: give that
    ``weight_decay=0`` and the transform :class:`decoupled_decay`, after this one.

    Args:
        cautious: whether to (default ``True``), an option of each group.
        cautious_eps: ε (default 1e-3), an option of each group.

    Raises:
        ValueError: ε is negative or NaN.

    Source: Liang, Chen, Liu, Liu, *Cautious Optimizers: Improving Training with One Line of Code*, 2024,
    arXiv 2411.16085, with the ε of the authors' program.
    """

    def __init__(self, cautious: bool = True, cautious_eps: float = 1e-3) -> None:
        super().__init__(cautious=cautious, cautious_eps=cautious_eps)

    @staticmethod
    def after(p: Value, new: Value, g: Value, cautious: bool, cautious_eps: Value) -> Value:
        if not cautious:
            return new
        agrees = ((new < p) & (g > 0)) | ((new > p) & (g < 0))
        share = xp.mean(xp.where(agrees, xp.ones_like(p), xp.zeros_like(p)))
        return xp.where(agrees, p + (new - p) / xp.clamp(share, min=cautious_eps), p)

    def check_options(self, options: Mapping[str, Any]) -> None:
        at_least_zero("cautious_eps", options["cautious_eps"])
