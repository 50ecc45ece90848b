"""The compiled update of a bucket: the coefficients, the threads, the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import frame as f

# Below this many elements waking a second thread costs more than it brings.
SHARED_FROM = 30_000
# Below this many elements a step is over before another Python thread would have had a turn.
GIL_FREE_FROM = 1 << 16
# So many different ages are told apart; further parameters get coefficients of their own.
DISTINCT_AGES = 32


def build() -> tuple[Callable[..., Any], ...]:
    """Four functions of ``(api, bucket)``.

    ``prepare`` and ``announce`` give a verdict and change no tensor; ``announce`` tells autograd which ones
    ``run`` is going to write to behind its back. ``visit`` is ``run`` for a kernel that writes to none.
    """
    import numba

    from .intrinsics import call0, call1, call2, call3, call4, call5, njit, pointer_to, run_rows

    words, doubles = pointer_to(numba.int64), pointer_to(numba.float64)

    @njit
    def compare(code: Any, x: Any, y: Any) -> Any:
        if code == f.LT:
            return x < y
        if code == f.LE:
            return x <= y
        if code == f.GT:
            return x > y
        if code == f.GE:
            return x >= y
        if code == f.EQ:
            return x == y
        return x != y

    @njit
    def operate(code: Any, x: Any, y: Any) -> Any:
        if code == f.ADD:
            return x + y
        if code == f.SUB:
            return x - y
        if code == f.MUL:
            return x * y
        if code == f.DIV:
            return x / y
        if code == f.POW:
            return x**y
        if code == f.NEG:
            return -x
        if code == f.ABS:
            return abs(x)
        if code == f.SQRT:
            return math.sqrt(x)
        if code == f.EXP:
            return math.exp(x)
        if code == f.LOG:
            return math.log(x)
        if code == f.SIN:
            return math.sin(x)
        return math.cos(x)

    @njit
    def evaluate(bucket: Any, age: Any, numbers: Any) -> Any:
        """The coefficients after ``age`` steps; false if only Python can say what they are."""
        registers = doubles(bucket[f.REGISTERS])
        operations, conditions = (
            words(bucket[f.PROGRAM]),
            words(bucket[f.PROGRAM] + 24 * bucket[f.OPERATIONS]),
        )
        results = words(bucket[f.RESULTS])
        if bucket[f.STEP_REGISTER] >= 0:
            registers[bucket[f.STEP_REGISTER]] = age + 1
        for k in range(bucket[f.OPERATIONS]):
            x, y = registers[operations[3 * k + 1]], registers[operations[3 * k + 2]]
            value = operate(operations[3 * k], x, y)
            if not math.isfinite(value):  # where Python would raise an error, or compute a complex number
                return False
            registers[bucket[f.FIRST_RESULT] + k] = value
        for k in range(bucket[f.CONDITIONS]):
            x, y = registers[conditions[4 * k + 1]], registers[conditions[4 * k + 2]]
            if compare(conditions[4 * k], x, y) != (conditions[4 * k + 3] != 0):
                return False
        for k in range(bucket[f.WIDTH]):
            numbers[k] = registers[results[k]]
        return True

    @njit
    def coefficients(bucket: Any) -> Any:
        """Write down the coefficients of each parameter; equal ones once."""
        sets, ages, absent = words(bucket[f.SETS]), doubles(bucket[f.AGES]), words(bucket[f.ABSENT])
        width, counts, first = bucket[f.WIDTH], bucket[f.COUNTS_STEPS], -1
        n = 0
        for i in range(bucket[f.COUNT]):
            sets[i] = -1
            if absent[i]:
                continue
            if bucket[f.ASKS_FIRST] and ages[i] == 0:
                return False
            if not math.isfinite(ages[i]):
                return False
            if counts or n == 0:
                for j in range(min(i, DISTINCT_AGES)):
                    if sets[j] >= 0 and ages[j] == ages[i]:
                        sets[i] = sets[j]
                        break
                if first >= 0 and ages[first] == ages[i]:
                    sets[i] = sets[first]
                if sets[i] < 0:
                    if not evaluate(bucket, ages[i], doubles(bucket[f.NUMBERS] + 8 * n * width)):
                        return False
                    sets[i] = n
                    n += 1
                first = i
            else:
                sets[i] = 0
        return True

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
        call4(api[f.LIST_SET_SLICE], bucket[f.WRITTEN], 0, 1 << 40, 0)
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
            at_once = bucket[f.COUNT] if bucket[f.SWEEPS] == 1 else 1
            for item in range(0, bucket[f.COUNT], at_once):
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

    return prepare, announce, run, visit
