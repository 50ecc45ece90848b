"""Numbers next to variables, as in ``2 * x``: made tensors once, not in every operation."""

from __future__ import annotations

import torch
from torch import Tensor

from ..traced import Value

NUMBERS = frozenset({int, float})
_known: dict[tuple[float, torch.dtype], Tensor] = {}


def with_tensors(a: Value, b: Value) -> tuple[Value, Value]:
    """A number next to a tensor as a 0-d tensor, with which the result is the same bit for bit.

    Torch makes a new tensor of the number each time, here and again in the derivative, which takes longer
    than to multiply two scalars. And programs use the same few numbers all the time.
    """
    if type(b) in NUMBERS:
        return a, as_tensor(b, a.dtype)
    if type(a) in NUMBERS:
        return as_tensor(a, b.dtype), b
    return a, b


def as_tensor(number: float, dtype: torch.dtype) -> Value:
    """The tensor, which nobody may write to; or the number itself where a tensor could make a difference."""
    known = _known.get((number, dtype))
    if known is not None:
        return known
    # Zero has two signs, but one key. Half precision rounds tensors earlier than numbers, and a large integer
    # is not always rounded alike.
    if dtype not in (torch.float32, torch.float64) or not 0 < abs(number) < 2**24:
        return number
    made = torch.scalar_tensor(number, dtype=dtype, device="cpu")
    if type(made) is Tensor and not made.is_inference():  # or it belongs to a mode that will have ended
        if len(_known) >= 256:
            _known.clear()
        _known[number, dtype] = made
    return made
