"""What a loader and its samplers remember from one pass to the next."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Restore = Callable[[], object]


def loader_states(batches: Any) -> list[Restore]:
    """How to put back random numbers and counters of a loader, its samplers, however nested, and its data.

    Of loaders and samplers every attribute is put back, such as the number of an epoch; of a data set only
    the random number generators among its attributes, for the rest may be a cache or an open file.
    """
    restores: list[Restore] = []
    for owner in parts_of(batches):
        attributes = vars(owner)
        restores += [restore for value in attributes.values() if (restore := generator_state(value))]
        if not isinstance(owner, Dataset):
            restores.append(partial(put_back_attributes, attributes, attributes.copy()))
    return restores


def parts_of(batches: Any) -> Iterator[Any]:
    """The loader, and what of its kind it holds in its attributes, and so on; each once."""
    seen: set[int] = set()
    found = [batches]
    while found:
        part = found.pop()
        if id(part) in seen or not hasattr(part, "__dict__"):
            continue
        seen.add(id(part))
        yield part
        found += [v for v in vars(part).values() if isinstance(v, DataLoader | Dataset | Sampler)]


def generator_state(value: Any) -> Restore | None:
    """How to put back a random number generator of torch's, Python's or numpy's; of nothing else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if numpy is not None and isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    return None


def put_back_attributes(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    attributes.clear()
    attributes.update(before)
