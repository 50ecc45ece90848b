"""A few worker threads for steps that are large enough to share.

Compiled kernels let go of the interpreter lock, so plain Python threads are all it takes. A second OpenMP
pool next to torch's own would slow down the forward pass; these threads sleep between steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import torch

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _forget_pool() -> None:
    """A forked child has the pool object but not its threads."""
    global _pool, _pool_size
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def share(work: Callable[[int, int], object], pieces: Sequence[tuple[int, int]]) -> None:
    """Call ``work(start, stop)`` for all pieces, on as many threads as torch may use."""
    helpers = min(torch.get_num_threads(), len(pieces)) - 1
    next_piece = count().__next__  # one C call: no two threads get the same number

    def take_pieces() -> None:
        while (i := next_piece()) < len(pieces):
            work(*pieces[i])

    futures: list[Future[None]] = []
    # When the main thread has ended Python starts no more threads: this one does it alone.
    with suppress(RuntimeError):
        futures += (_workers(helpers).submit(take_pieces) for _ in range(helpers))
    try:
        take_pieces()
    finally:
        take_pieces()  # Ctrl-C comes after the step, not in the middle of it
        for future in futures:
            # One that never started has nothing left to do: the pool may be busy with another optimizer.
            if not future.cancel():
                future.result()


def _workers(least: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < least:
        # An older, smaller pool finishes what it has and goes when the last thread lets go of it.
        _pool = ThreadPoolExecutor(least, thread_name_prefix="torchopt_course")
        _pool_size = least
    return _pool
