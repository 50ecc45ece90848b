"""Copies of a variable, in memory or in a file: those of a leaf are leaves. A past is not copied."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from .hooks import Hooked
from .traced import Level, Traced, Value, raw
from .views import Follows

# The attributes that are not the user's.
OURS = frozenset({*Traced.__annotations__, *Hooked.__annotations__, *Follows.__annotations__})


class Copied(Traced):
    """The methods of a variable that copy it."""

    level: Level
    is_leaf: bool
    _grad: Value

    def __copy__(self) -> Any:
        """Another leaf of the same memory, as of a tensor."""
        if self.level.depth > 0:
            raise RuntimeError(
                "a value inside of a transform cannot be copied without its past; use x.clone()"
            )
        copied = type(self)(self).requires_grad_(self.requires_grad)
        copied.__dict__.update({name: x for name, x in vars(self).items() if name not in OURS})
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Another leaf with memory of its own, as of a tensor."""
        if not self.is_leaf or self.level.depth > 0:
            super().__deepcopy__(memo)
        copied = memo[id(self)] = _leaf(type(self), raw(self).clone(), self.requires_grad)
        copied._grad = copy.deepcopy(self._grad, memo)
        return copied

    def __reduce_ex__(self, protocol: object) -> Any:
        """As a tensor is pickled and saved, without its gradient; of a result the plain tensor."""
        if self.level.depth > 0:
            super().__reduce_ex__(protocol)
        if not self.is_leaf:
            return raw(self).detach().requires_grad_().__reduce_ex__(protocol)
        return _leaf, (type(self), raw(self).detach(), self.requires_grad)


def _leaf(kind: Any, data: Tensor, requires_grad: bool) -> Any:
    return kind(data).requires_grad_(requires_grad)


# What torch.load() may call.
torch.serialization.add_safe_globals([_leaf])
