"""How a tensor's elements may lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CONTIGUOUS = "contiguous"


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.dim() > 1 else x


def _with_gaps(x: Tensor) -> Tensor:
    """Every other element of a larger tensor, from the second on: what is between them is NaN."""
    shape = [*x.shape[:-1], 2 * x.shape[-1] + 1] if x.dim() else [3]
    larger = torch.full(shape, torch.nan, dtype=x.dtype, device=x.device)
    part = larger[..., 1::2] if x.dim() else larger[1]
    return part.copy_(x)


def _expanded(x: Tensor) -> Tensor:
    """The first row, again and again, in one memory."""
    return x[:1].clone().expand(x.shape) if x.dim() and len(x) > 1 else x


def _channels_last(x: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    CONTIGUOUS: lambda x: x,
    "transposed": _transposed,
    "with gaps": _with_gaps,
    "expanded": _expanded,
    "channels last": _channels_last,
}
