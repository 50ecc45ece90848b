"""Which operations a function consists of, and whether torch.autograd sees through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd.reverse import Leaf
from ..autograd.traced import Traced, Value, raw
from ..autograd.variable import ReverseLevel, tracked_variable


class Operation(NamedTuple):
    """A primitive and what it was called with."""

    op: Any
    args: tuple[Value, ...]
    moving: tuple[int, ...]  # the arguments that depend on the inputs
    dtype: torch.dtype  # of the result

    @property
    def visible(self) -> bool:
        """Torch sees through it: the result requires a gradient if an argument does."""
        if any(not self.op.differentiates(i if not self.op.variadic else 0) for i in self.moving):
            return True
        with torch.enable_grad():
            args = [
                arg.clone().requires_grad_() if i in self.moving and isinstance(arg, Tensor) else arg
                for i, arg in enumerate(self.args)
            ]
            return bool(self.op(*args).requires_grad)


class _Watch(ReverseLevel):
    """Writes down every operation with its arguments."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Operation] = []

    def apply(self, op: Any, args: tuple[Value, ...]) -> Value:
        moving = tuple(i for i, arg in enumerate(args) if isinstance(arg, Traced) and arg.level is self)
        plain = [raw(arg) for arg in args]  # copies, for f may change them in place later
        copies = tuple(arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in plain)
        result = super().apply(op, args)
        self.seen.append(Operation(op, copies, moving, result.dtype))
        return result


def operations(f: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Operation]:
    """In the order in which f calls them, but for the copies that are made of the inputs first."""
    level = _Watch()
    with level, torch.enable_grad():
        f(*[tracked_variable(x, level, Leaf(x)) for x in inputs])
    return level.seen[len(inputs) :]
