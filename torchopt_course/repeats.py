"""A parameter that stands more than once in the groups: torch warns and steps it as often as it stands there.

Each time it is stepped with the gradient and the state that the time before has left, so the engines, which
look at all tensors before they write to any, must not meet it twice. A step is made in laps: the first of
all parameters, the second of those that stand there a second time, and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Place = tuple[int, int]  # group, position


def laps(groups: Sequence[dict[str, Any]]) -> dict[Place, int]:
    """In which lap a parameter is stepped, for each place where one stands that stood already before."""
    seen: Counter[int] = Counter()
    later: dict[Place, int] = {}
    for i, group in enumerate(groups):
        for position, param in enumerate(group["params"]):
            if seen[id(param)]:
                later[i, position] = seen[id(param)]
            seen[id(param)] += 1
    return later


def gradients(
    groups: Sequence[dict[str, Any]], later: dict[Place, int], lap: int
) -> list[list[Tensor | None]]:
    """The gradients of the parameters that are stepped in a lap; ``None`` for all others."""
    if not later:
        return [[param.grad for param in group["params"]] for group in groups]
    return [
        [
            param.grad if later.get((i, position), 0) == lap else None
            for position, param in enumerate(group["params"])
        ]
        for i, group in enumerate(groups)
    ]
