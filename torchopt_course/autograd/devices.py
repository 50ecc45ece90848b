"""A number of the CPU next to tensors of a GPU: torch takes it, and its gradient is on the CPU again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .dispatch import TABLE
from .traced import Operation, Value


def has_numbers_of_cpu(args: Sequence[Value]) -> bool:
    """Whether gradients are asked of such numbers, and there is something beside them."""
    return len(args) > 1 and any(map(_is_number_of_cpu, args)) and not all(map(_is_on_cpu, args))


def on_one_device(op: Operation, args: Sequence[Value]) -> Any:
    """The operation once more, with its numbers moved: moving is recorded, and goes back for the gradient."""
    device = next(x.device for x in args if isinstance(x, Tensor) and x.device.type != "cpu")
    move = TABLE[Tensor.to]
    return op(*[move(x, device) if _is_number_of_cpu(x) else x for x in args])


def _is_number_of_cpu(x: Value) -> bool:
    return isinstance(x, Tensor) and not x.shape and x.requires_grad and x.device.type == "cpu"


def _is_on_cpu(x: Value) -> bool:
    return not isinstance(x, Tensor) or x.device.type == "cpu"
