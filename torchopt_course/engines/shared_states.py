"""Two parameters whose states share memory, which somebody has put there: engines would not agree.

torch's for-loop lets each parameter see what the one before has left of it, its foreach does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from .group import Created, Group
from .repeats import memory_of, sharing


class Optimizer(Protocol):
    """What is asked of an optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    @property
    def state(self) -> Mapping[Tensor, Any]: ...
    def _part(self, i: int) -> Any: ...
    def _where(self, i: int, position: int) -> str: ...


def refuse_shared_states(optimizer: Optimizer, groups: Sequence[Group], created: Sequence[Created]) -> None:
    """Raise RuntimeError if a state, or a step count, has memory in common with one of another parameter."""
    states: dict[tuple[int, int, str], tuple[Tensor, Tensor]] = {}  # and whose it is
    for group in groups:
        i = group.index
        for position, param in enumerate(optimizer.param_groups[i]["params"]):
            own = optimizer.state.get(param, {})
            for name in (*group.options.states, "step"):
                if isinstance(state := own.get(name), Tensor):
                    states[i, position, name] = state, param
    for key, before in sharing([(*memory_of(state), key) for key, (state, _) in states.items()]):
        other = next((other for other in before if states[other][1] is not states[key][1]), None)
        if other is None:  # its own parameter's
            continue
        i, position, name = key
        here, there = optimizer._where(i, position), optimizer._where(*other[:2])
        if key in created:
            said = f"{type(optimizer._part(i)).__name__}.initial_state made one tensor for "
            said += f"several, as {name!r} of {here} among them"
        elif states[key][0] is states[other][0]:
            said = f"state {name!r} of {here} is one and the same tensor as a state of {there}"
        else:
            said = f"state {name!r} of {here} shares memory with state {other[2]!r} of {there}"
        raise RuntimeError(f"{said}: each needs its own, clone() it")
