"""The values of a graph's nodes, which the graph itself does not keep: it would cost memory and time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from .primitives.table import ELEMENTWISE
from .reverse import Leaf, Node, version_of
from .traced import Operation, Value, raw
from .variable import BASE, BaseLevel, Variable
from .written import MOST_NUMBERS


class _Kept(threading.local):
    """What the calls of :func:`keep_values` in this thread have collected, the innermost last."""

    def __init__(self) -> None:
        self.values: list[dict[Node, Tensor]] = []


class KeepingLevel(BaseLevel):
    """Records, and keeps each value that is small enough to be shown."""

    __slots__ = ()

    def apply(self, op: Operation, args: tuple[Value, ...]) -> Value:
        result = super().apply(op, args)
        if _kept.values and isinstance(result, Variable) and raw(result).numel() <= MOST_NUMBERS:
            _kept.values[-1][result.node] = raw(result).detach().clone()  # it may be written to later
        return result


_kept, _lock, _users = _Kept(), threading.Lock(), [0]


@contextmanager
def keep_values() -> Iterator[dict[Node, Tensor]]:
    """Within the block values are kept. Outside of it nobody pays for that: the level changes its class."""
    found: dict[Node, Tensor] = {}
    with _lock:
        _users[0] += 1
        BASE.__class__ = KeepingLevel
    _kept.values.append(found)
    try:
        yield found
    finally:
        _kept.values.pop()
        with _lock:
            _users[0] -= 1
            if not _users[0]:
                BASE.__class__ = BaseLevel


def known_values(order: Sequence[Node], variables: Iterable[Variable]) -> dict[Node, Tensor]:
    """What is known of the nodes' values: of leaves, of variables at hand, and of numbers.

    Nobody keeps the values on the way. But an operation saves what its derivative needs, of its arguments and
    its result; and a number that is made from known ones can be computed once more.
    """
    found = {variable.node: raw(variable) for variable in variables}
    changed = set()  # leaves that are other numbers by now than those that were computed with
    for node in order:
        if isinstance(node, Leaf):
            owner = node.tensor
            if owner is not None:
                found[node] = raw(owner).detach()
                changed |= {node} if version_of(raw(owner)) != node.version else set()
        elif node.saved and all(tensor._version == version for tensor, version in node.versions):
            past = {-1: node, **dict(enumerate(node.parents))}
            for value, n in zip(node.saved, node.plan.pasts, strict=True):
                if n is not None and isinstance(value, Tensor):
                    found.setdefault(past[n], raw(value))
    for node in order:
        if node not in found and node.op is not None and not node.shape and node.op.jvp == ELEMENTWISE:
            known = None if changed & set(node.parents) else _arguments(node, found)
            if known is not None:
                found[node] = node.op(*known)
    return found


def _arguments(node: Node, found: Mapping[Node, Tensor]) -> list[Value] | None:
    """All arguments of an operation, if they are known."""
    known: list[Value] = [None] * len(node.op.parameters)
    missing = set(range(len(known)))
    for i, parent in zip(node.plan.variables, node.parents, strict=True):
        if parent in found:
            known[i] = found[parent]
            missing.discard(i)
    for slot, value in zip(node.plan.slots, node.saved or (), strict=False):
        if slot.attribute is None and slot.place in missing:
            known[slot.place] = raw(value)
            missing.discard(slot.place)
    return None if missing else known
