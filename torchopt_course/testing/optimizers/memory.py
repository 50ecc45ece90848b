"""What is alive: counted by the garbage collector, which knows better than the process's size."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer


@contextmanager
def only_what_is_new() -> Iterator[None]:
    """The collector looks at nothing that is there already: counting takes no time then."""
    gc.collect()
    if gc.get_freeze_count():  # somebody else does so for the whole program
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Alive(NamedTuple):
    """How much there is of what must not become more from step to step."""

    tensors: int
    entries_in_the_optimizer: int

    @classmethod
    def now(cls, optimizer: Optimizer) -> Alive:
        """After a collection, so that only what somebody still holds is counted."""
        gc.collect()
        tensors = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
        return cls(tensors, _entries(optimizer.__dict__))


def _entries(root: Any) -> int:
    """In all dictionaries and sequences that can be reached without leaving them."""
    count, seen, waiting = 0, {id(root)}, [root]
    while waiting:
        thing = waiting.pop()
        items = list(thing.values()) if isinstance(thing, dict) else list(thing)
        count += len(items)
        for item in items:
            if isinstance(item, (dict, list, tuple, set, frozenset, deque)) and id(item) not in seen:
                seen.add(id(item))
                waiting.append(item)
    return count
