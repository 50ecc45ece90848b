"""Variables whose gradient nobody asks for: ``x.requires_grad_(False)``, ``x.detach_()``.

They stay variables, so they may be switched on again. Until then they are on a level below all others, where
nothing is recorded.
"""

from __future__ import annotations

from .traced import Level, Operation, Traced, Value, raw


class ConstantLevel(Level):
    """What is computed of such variables alone are plain tensors."""

    __slots__ = ()

    def apply(self, op: Operation, args: tuple[Value, ...]) -> Value:
        return op(*map(raw, args))


CONSTANT = ConstantLevel()
CONSTANT.depth, CONSTANT.open = -1, True


def is_constant(value: Value) -> bool:
    """Whether it has no derivative, though it may be a variable."""
    return not isinstance(value, Traced) or value.level is CONSTANT
