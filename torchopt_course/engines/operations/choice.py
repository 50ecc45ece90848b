"""A choice by what is true or false of several tensors: by a truth value of Python's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """As torch's; the condition may be one for all elements."""
    if type(condition) is bool:
        like = x if isinstance(x, Tensor) else y
        condition = torch.full((), condition, dtype=torch.bool, device=like.device)
    return torch.where(condition, x, y)
