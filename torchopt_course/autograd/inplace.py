"""In-place operations: the variable stays the same object and gets another past."""

from __future__ import annotations

from .reverse import Leaf
from .traced import Traced, Value
from .variable import Variable


def replace(x: Value, new: Value, name: str) -> Value:
    """What an in-place operation comes to: ``x.mul_(2)`` is ``x * 2`` that takes the place of x."""
    if not isinstance(x, Variable):
        kind = "a plain tensor, which cannot remember it" if not isinstance(x, Traced) else "a dual number"
        raise RuntimeError(f"{name} would write a variable's value into {kind}; write x = x.{name[:-1]}(...)")
    if isinstance(x.node, Leaf):
        raise RuntimeError(f"{name} on a leaf variable: its gradient could no longer be told; use x.detach()")
    if any((other := ref()) is not None and other is not x for ref in getattr(x.node, "sharing", ())):
        raise RuntimeError(
            f"{name} on a variable that shares memory with another one, which would have to change with it "
            f"(one is a view of the other); write x = x.{name.rstrip('_')}(...)"
        )
    if not isinstance(new, Variable):
        raise RuntimeError(f"{name} under no_grad would forget the variable's past; use x.detach()")
    x.data, x.node, x.level = new.data, new.node, new.level
    return x
