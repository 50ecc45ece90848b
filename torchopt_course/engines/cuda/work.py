"""What the programs of a launch are for: chunks of tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..guards import Guards
from .kernel import CHUNK
from .tables import Words, is_captured, keep_for_graphs, upload


class Work(NamedTuple):
    """What a launch is for.

    Attributes:
        chunks: one row for each program of the launch: which tensor, from where, how many elements.
        size: how many elements in all.
        rows: which tensors of the bucket.
    """

    chunks: Tensor
    size: int
    rows: Tensor


class Works:
    """The work of a bucket's steps.

    Attributes:
        whole: that of all tensors.
        of_tensors: for each tensor where its chunks begin in that work, and how many elements it has.
    """

    def __init__(self, sizes: Words, device: torch.device) -> None:
        self._sizes, self._device = sizes, device
        self._chunks = _chunks_of(sizes)
        self.whole = self._work(np.ones(len(sizes), dtype=bool))
        starts = np.searchsorted(self._chunks[:, 0], np.arange(len(sizes)))
        self.of_tensors = upload(np.stack([starts, sizes], axis=1), device)
        self._pattern = b""
        self._split: list[tuple[float, Work]] = []

    def of_present(self, guards: Guards) -> list[Work]:
        """That of all parameters that have a gradient; none if nobody has."""
        return [work for _, work in self._kept(guards, np.ones_like(guards.ages), same_age=True)]

    def by_age(self, guards: Guards) -> list[tuple[float, Work]]:
        """The numbers of steps taken, each with the work of those; most often one, for all tensors."""
        return self._kept(guards, guards.ages, same_age=guards.same_age)

    def _kept(self, guards: Guards, ages: Any, *, same_age: bool) -> list[tuple[float, Work]]:
        """The parts; those that a graph reads outlive another pattern of gradients, and the plan."""
        parts = self._parts(guards, ages, same_age=same_age)
        if is_captured(self._device):
            keep_for_graphs(
                self.of_tensors, *(each for _, work in parts for each in (work.chunks, work.rows))
            )
        return parts

    def _parts(self, guards: Guards, ages: Any, *, same_age: bool) -> list[tuple[float, Work]]:
        if guards.present == len(ages) and same_age:
            return [(ages.item(0), self.whole)]
        if not guards.present:
            return []
        stepped = guards.absent == 0
        if not np.isfinite(ages[stepped]).all():
            # Someone has written it into a "step": torch takes it as it is.
            each = [(ages.item(i), np.arange(len(ages)) == i) for i in np.flatnonzero(stepped)]
            return [(age, self._work(mine)) for age, mine in each]
        oldest = ages[stepped].max()
        # Parameters that are all stepped keep their distance in age, so the parts stay the same for long.
        behind = np.where(stepped, oldest - ages, -1)
        pattern = behind.tobytes()
        if pattern != self._pattern:
            self._split = [(lag, self._work(behind == lag)) for lag in np.unique(behind[stepped])]
            self._pattern = pattern
        return [(float(oldest - lag), work) for lag, work in self._split]

    def _work(self, mine: np.ndarray[Any, np.dtype[np.bool_]]) -> Work:
        """That of some of the tensors."""
        chunks = upload(self._chunks[mine[self._chunks[:, 0]]], self._device)
        return Work(chunks, int(self._sizes[mine].sum()), upload(np.flatnonzero(mine), self._device))


def _chunks_of(sizes: Words) -> Words:
    """The chunks of tensors of these sizes; an empty tensor has one, too."""
    return np.array(
        [
            (i, start, min(CHUNK, size - start))
            for i, size in enumerate(sizes.tolist())
            for start in range(0, max(size, 1), CHUNK)
        ],
        dtype=np.int64,
    )
