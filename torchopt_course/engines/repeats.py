"""Parameters that share memory: one that stands in the groups again, or views of the same storage.

torch steps parameter after parameter: each time with the numbers, the gradient and the state that the time
before has left. The engines look at all tensors before they write to any, so they must not meet the same
memory twice. A step is made in laps: the first of all parameters, the second of those that share memory with
one of the first, and so on. For one that stands there twice torch warns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

Place = tuple[int, int]  # group, position
Key = TypeVar("Key", bound=tuple[Any, ...])


def laps(groups: Sequence[dict[str, Any]]) -> dict[Place, int]:
    """In which lap a parameter is stepped, for each place where memory stands that stood already before."""
    places: list[tuple[int, int, Place]] = []
    for i, group in enumerate(groups):
        for position, param in enumerate(group["params"]):
            places.append((*memory_of(param), (i, position)))
    later: dict[Place, int] = {}
    for place, before in sharing(places):
        later[place] = 1 + max(later.get(p, 0) for p in before)
    return later


def sharing(places: list[tuple[int, int, Key]]) -> Iterator[tuple[Key, list[Key]]]:
    """In the order of the groups each place that shares memory with some before it, and those.

    Args:
        places: from which address to which, and where.
    """
    for together in _overlapping(places):
        for n, (start, stop, place) in enumerate(together):
            before = [other for first, end, other in together[:n] if first < stop and start < end]
            if before:
                yield place, before


def _overlapping(places: list[tuple[int, int, Key]]) -> list[list[tuple[int, int, Key]]]:
    """Sets of places that hang together by shared memory, each in the order of the groups."""
    sets: list[list[tuple[int, int, Key]]] = []
    end = 0
    for each in sorted(places):
        if sets and each[0] < end:
            sets[-1].append(each)
        else:
            sets.append([each])
        end = max(end, each[1]) if len(sets[-1]) > 1 else each[1]
    return [sorted(several, key=lambda each: each[2]) for several in sets if len(several) > 1]


def memory_of(param: Tensor) -> tuple[int, int]:
    """The first address of a parameter or a state, and the first that is not its own any more."""
    if type(param) in (Tensor, Parameter) and param.layout == torch.strided and param.numel():
        try:
            start, strides = param.data_ptr(), zip(param.shape, param.stride(), strict=True)
        except RuntimeError:  # inside of a function transform tensors have no memory
            start = 0
        if start:
            return start, start + (1 + sum((n - 1) * stride for n, stride in strides)) * param.itemsize
    # No address is known: its own object is its memory. (No address is negative.)
    return -id(param), -id(param) + 1


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
