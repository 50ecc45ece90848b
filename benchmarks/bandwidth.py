"""How fast this machine streams memory in the pattern of Adam: three streams updated, a fourth one read.

No optimizer can be faster on tensors larger than the caches. The pattern is run twice, as a compiled loop
without any torch in it and as torch's own in-place operations, and the faster of the two is the limit. The
memory comes from torch's allocator, as an optimizer's does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from .machine import torch_threads
from .timing import time_calls

Stream = np.ndarray[Any, np.dtype[np.float32]]

ELEMENTS = 1 << 26  # 256 MB a stream: no cache holds that
PIECE = 1 << 18  # what a thread takes at a time


@dataclass(frozen=True)
class Bandwidth:
    """The best that was seen, and how it came about.

    Attributes:
        candidates: the best of each way, by its description, in GB/s.
    """

    threads: int
    candidates: dict[str, float]

    @property
    def gigabytes_per_second(self) -> float:
        return max(self.candidates.values())

    @property
    def how(self) -> str:
        return max(self.candidates, key=self.candidates.__getitem__)

    def or_better(self, other: Bandwidth) -> Bandwidth:
        """The best of two measurements with the same number of threads."""
        best = {how: max(value, other.candidates[how]) for how, value in self.candidates.items()}
        return Bandwidth(self.threads, best)


def share(bytes_per_element: int, elements: int, microseconds: float, limit: Bandwidth) -> float:
    """Which part of the limit a step reaches that takes so long."""
    return bytes_per_element * elements / (microseconds * 1e-6) / (limit.gigabytes_per_second * 1e9)


def streaming_bandwidth(threads: int, *, elements: int = ELEMENTS, repetitions: int = 12) -> Bandwidth:
    streams = [torch.full((elements,), 1e-3) for _ in range(4)]
    *updated, read = streams
    ways: Mapping[str, tuple[int, Callable[[], object]]] = {
        # Three times read and write, once read.
        "one compiled loop": (28, _shared_loop([stream.numpy() for stream in streams], threads)),
        # The fourth stream is read anew for each of the three.
        "torch's in-place additions": (36, lambda: [stream.add_(read) for stream in updated]),
    }
    with torch_threads(threads):
        return Bandwidth(
            threads,
            {
                how: bytes_moved * elements / min(time_calls(run, repetitions + 1)[1:])
                for how, (bytes_moved, run) in ways.items()
            },
        )


def _shared_loop(streams: list[Stream], threads: int) -> Callable[[], None]:
    """The pattern as a function that shares the work between ``threads`` threads, this one included."""
    import numba

    add_to_three = numba.njit(nogil=True)(_add_to_three)
    add_to_three(*(stream[:1] for stream in streams))
    pieces = [
        [stream[start : start + PIECE] for stream in streams] for start in range(0, len(streams[0]), PIECE)
    ]
    helpers = ThreadPoolExecutor(threads)

    def run() -> None:
        next_piece = count().__next__  # one C call: no two threads get the same number

        def take_pieces() -> None:
            while (i := next_piece()) < len(pieces):
                add_to_three(*pieces[i])

        futures = [helpers.submit(take_pieces) for _ in range(threads - 1)]
        take_pieces()
        for future in futures:
            future.result()

    return run


def _add_to_three(first: Stream, second: Stream, third: Stream, read: Stream) -> None:
    for i in range(read.size):
        g = read[i]
        first[i] += g
        second[i] += g
        third[i] += g
