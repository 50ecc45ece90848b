"""An optimizer and torch's beside it, and what a user may do to either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..helpers import ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix"]
Edit = Callable[[Any], object]


def stepped(name: str, engine: dict[str, bool]) -> Any:
    """Ours and torch's for-loop, after two steps."""
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = ours(name)(mine, **options, **engine)
    other = theirs(name)(reference, **options, foreach=False)
    for step in range(2):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    return mine, reference, optimizer, other


def params_of(optimizer: Any) -> list[Any]:
    return optimizer.param_groups[0]["params"]


def write(optimizer: Any, name: str, value: Any) -> None:
    optimizer.param_groups[0][name] = value


def new_parameter(optimizer: Any) -> nn.Parameter:
    param = nn.Parameter(torch.ones(2, dtype=torch.float64))
    param.grad = torch.ones_like(param)
    return param


def forget(optimizer: Any, position: int) -> None:
    optimizer.state.pop(params_of(optimizer).pop(position), None)
