"""An exponential average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..validation.options import fraction
from .transform import Transform, Value, copy_of


class ema(Transform):
    r"""Keep an exponential average of the weights beside them.

    .. math:: \bar\theta \leftarrow d \, \bar\theta + (1 - d) \, \theta_\text{new},
        \qquad \bar\theta = \theta_\text{new} \text{ in a parameter's first step}

    As :class:`torch.optim.swa_utils.AveragedModel` with
    ``multi_avg_fn=get_ema_multi_avg_fn(d)``. The weights themselves go as they would without it;
    :func:`torchopt_course.averaged_weights` puts the average in their place for a while.

    State: ``ema`` (like its parameter).

    Args:
        ema_decay: d in [0, 1) (default 0.999), an option of each group; 0 for no average.

    Raises:
        ValueError: d is out of range.

    Source: Polyak, Juditsky, *Acceleration of Stochastic Approximation by Averaging*, 1992.
    """

    optional_states = {"ema": "ema_decay"}

    def __init__(self, ema_decay: float = 0.999) -> None:
        super().__init__(ema_decay=ema_decay)

    @staticmethod
    def coefficients(step: Value, ema_decay: Value) -> dict[str, Any]:
        keep = ema_decay * (step > 1)  # so said for a step count on a device too
        return {"keep": keep, "fresh": 1 - keep}

    @staticmethod
    def after(p: Value, new: Value, g: Value, ema: Value, keep: Value, fresh: Value) -> Value:
        return new, None if ema is None else keep * ema + fresh * new

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        return copy_of(param)

    def check_options(self, options: Mapping[str, Any]) -> None:
        fraction("ema_decay", options["ema_decay"])
