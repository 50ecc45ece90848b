"""The compiled update of a bucket: the threads, the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import frame as f

# Below this many elements waking a second thread costs more than it brings.
SHARED_FROM = 30_000
# Below this many elements a step is over before another Python thread would have had a turn.
GIL_FREE_FROM = 1 << 16


def build(coefficients: Any) -> tuple[Callable[..., Any], ...]:
    """Four functions of ``(api, bucket)``.

    ``prepare`` and ``announce`` give a verdict and change no tensor; ``announce`` tells autograd which ones
    ``run`` is going to write to behind its back. ``visit`` is ``run`` for a kernel that writes to none.

    Args:
        coefficients: of :mod:`.numbers`.
    """
    import numba

    from .intrinsics import call0, call1, call2, call3, call4, call5, njit, pointer_to, run_rows

    words, doubles = pointer_to(numba.int64), pointer_to(numba.float64)

    @njit
    def gradients_apart(bucket: Any) -> Any:
        """Whether no gradient shares memory with what is written: with parameters and states."""
        bounds, n = words(bucket[f.BOUNDS]), bucket[f.BOUND_COUNT]
        absent, width = words(bucket[f.ABSENT]), 2 + bucket[f.COLUMNS]
        sizes = words(bucket[f.BOUNDS] + 16 * n)
        for i in range(bucket[f.COUNT]):
            if absent[i]:
                continue
            start = words(bucket[f.TABLE])[i * width + 1]
            low, high = 0, n
            while low < high:  # the first that ends after the gradient's start
                middle = (low + high) // 2
                if bounds[2 * middle + 1] > start:
                    high = middle
                else:
                    low = middle + 1
            if low < n and bounds[2 * low] < start + sizes[i]:
                return False
        return True

    @njit
    def threads(api: Any, bucket: Any) -> Any:
        if bucket[f.ELEMENTS] < SHARED_FROM or api[f.PARALLEL_FOR] == 0:
            return 1
        call1(api[f.NUM_THREADS], bucket[f.SCRATCH])
        return words(bucket[f.SCRATCH])[0] & 0xFFFFFFFF

    def prepare(api: Any, bucket: Any) -> Any:
        if bucket[f.PROGRAM] and not coefficients(bucket):
            return f.COEFFICIENTS
        wanted = threads(api, bucket)
        if wanted > 1:
            if bucket[f.PARTS] != wanted:
                return f.THREADS_CHANGED
            if bucket[f.TARGETS_MOVED]:
                return f.MEMORY_MOVED
            if bucket[f.GRADS_MOVED]:
                bucket[f.GRADS_APART] = gradients_apart(bucket)
                bucket[f.GRADS_MOVED] = 0
            if bucket[f.TARGETS_OVERLAP] or not bucket[f.GRADS_APART]:
                wanted = 1
        bucket[f.THREADS] = wanted
        return f.HOLDS

    def announce(api: Any, bucket: Any) -> Any:
        done = call2(api[f.CALL], api[f.INCREMENT_VERSION], bucket[f.WRITTEN])
        if done == 0:
            return f.CHANGED
        call1(api[f.DECREF], done)
        return f.HOLDS

    @njit
    def visit(api: Any, bucket: Any) -> Any:
        frame = bucket[f.SELF]
        releases = bucket[f.ELEMENTS] >= GIL_FREE_FROM
        interpreter = 0
        if releases:
            interpreter = call0(api[f.SAVE_THREAD])
        if bucket[f.THREADS] > 1:
            bucket[f.USED_WORK], bucket[f.USED_STARTS] = bucket[f.SHARED_WORK], bucket[f.SHARED_STARTS]
            for sweep in range(bucket[f.SWEEPS]):
                bucket[f.SWEEP] = sweep
                call5(api[f.PARALLEL_FOR], 0, bucket[f.THREADS], 1, run_rows(), frame)
        else:
            bucket[f.USED_WORK], bucket[f.USED_STARTS] = bucket[f.WORK], bucket[f.ROWS]
            # With several sweeps a tensor is done before the next begins: it is in the cache.
            turns, at_once = bucket[f.COUNT], 1
            if bucket[f.SWEEPS] == 1:
                turns, at_once = 1, bucket[f.COUNT]
            for item in range(turns):
                for sweep in range(bucket[f.SWEEPS]):
                    bucket[f.SWEEP] = sweep
                    call3(run_rows(), item, item + at_once, frame)
        if releases:
            call1(api[f.RESTORE_THREAD], interpreter)
        return f.HOLDS

    def run(api: Any, bucket: Any) -> Any:
        visit(api, bucket)
        if not bucket[f.COUNTS_STEPS]:
            ages, sets = doubles(bucket[f.AGES]), words(bucket[f.SETS])
            for i in range(bucket[f.COUNT]):
                if sets[i] >= 0:
                    ages[i] = 1
        # Until now they have kept alive what another thread may have dropped meanwhile.
        call4(api[f.LIST_SET_SLICE], bucket[f.WRITTEN], 0, 1 << 40, 0)
        if bucket[f.READ]:
            call4(api[f.LIST_SET_SLICE], bucket[f.READ], 0, 1 << 40, 0)

    return prepare, announce, run, visit
