"""What the programs of a launch are for: chunks of tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from .kernel import CHUNK
from .tables import Words


class Work(NamedTuple):
    """What a launch is for.

    Attributes:
        chunks: one row for each program of the launch: which tensor, from where, how many elements.
        size: how many elements in all.
        tensors: which tensors of the bucket; ``None``: all of them.
    """

    chunks: Tensor
    size: int
    tensors: Tensor | None = None


def chunks_of(sizes: Words) -> Words:
    """The chunks of tensors of these sizes; an empty tensor has one, too."""
    return np.array(
        [
            (i, start, min(CHUNK, size - start))
            for i, size in enumerate(sizes.tolist())
            for start in range(0, max(size, 1), CHUNK)
        ],
        dtype=np.int64,
    )
