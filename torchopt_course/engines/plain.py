"""Tensors that a program can be run on in place: nothing but numbers, and each in its own memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

import torch
from torch import Tensor

from .guards import PLAIN

_dtype, _layout = attrgetter("dtype"), attrgetter("layout")


def are_plain(columns: Sequence[Sequence[Tensor]]) -> bool:
    """Whether these are plain tensors of one dtype, and nobody's memory is another's.

    An operation in place gives then what it would give in memory of its own. Gradients are only read, so they
    may share memory with one another.

    Args:
        columns: parameters, gradients and each of the states, of fitting shapes.
    """
    tensors = list(chain(*columns))
    if not PLAIN.issuperset(map(type, tensors)) or {*map(_layout, tensors)} != {torch.strided}:
        return False
    dtypes = {*map(_dtype, tensors)}
    if len(dtypes) != 1 or any(map(Tensor.is_neg, tensors)):
        return False
    if dtypes.pop().is_complex and any(map(Tensor.is_conj, tensors)):
        return False
    count = len(columns[0])
    addresses = list(map(Tensor.data_ptr, tensors))
    # Empty tensors are nowhere.
    written = [address for address in addresses[:count] + addresses[2 * count :] if address]
    return len({*written}) == len(written) and {*written}.isdisjoint(addresses[count : 2 * count])
