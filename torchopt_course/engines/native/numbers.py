"""The compiled arithmetic of a bucket: of options, steps and what was found, the numbers for kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import frame as f

# So many different ages are told apart; further parameters get coefficients of their own.
DISTINCT_AGES = 32


def build() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions for compiled code.

    ``evaluate(bucket, age, numbers)`` writes down the numbers of the bucket's stage after ``age`` steps, and
    ``coefficients(bucket)`` those of each parameter. Both give false if only Python can say what they are.
    """
    import numba

    from .intrinsics import njit, pointer_to

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
    def combine(code: Any, x: Any, y: Any) -> Any:
        """Truth values, which are 1 and 0 among numbers."""
        if code == f.AND:
            return (x != 0) & (y != 0)
        if code == f.OR:
            return (x != 0) | (y != 0)
        if code == f.XOR:
            return (x != 0) ^ (y != 0)
        return x == 0

    @njit
    def remainder(x: Any, y: Any) -> Any:
        """Python's ``x % y``: of the sign of y."""
        rest = np.fmod(x, y)
        if rest == 0:
            return math.copysign(0.0, y)
        return rest + y if (y < 0) != (rest < 0) else rest

    @njit
    def whole_quotient(x: Any, y: Any) -> Any:
        """Python's ``x // y``, which is not always the floor of the rounded quotient."""
        rest = np.fmod(x, y)
        quotient = (x - rest) / y
        if rest != 0 and (y < 0) != (rest < 0):
            quotient -= 1.0
        if quotient == 0:
            return math.copysign(0.0, x / y)
        below = np.floor(quotient)
        return below + 1.0 if quotient - below > 0.5 else below

    @njit
    def operate(code: Any, x: Any, y: Any, z: Any) -> Any:
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
        if code == f.COS:
            return math.cos(x)
        if code == f.FLOOR:
            return np.floor(x)
        if code == f.CEIL:
            return np.ceil(x)
        if code == f.TRUNC:
            return np.trunc(x)
        if code == f.FMOD:
            return np.fmod(x, y)
        if code == f.MOD:
            return remainder(x, y)
        if code == f.FLOORDIV:
            return whole_quotient(x, y)
        if code == f.RECIPROCAL:
            return 1.0 / x
        if code == f.SIGN:
            return np.sign(x)
        if code == f.MAXIMUM:
            return x if (x > y) | (x != x) else y
        if code == f.MINIMUM:
            return x if (x < y) | (x != x) else y
        if code == f.WHERE:
            return y if x != 0 else z
        if code <= f.NE:
            return 1.0 if compare(code, x, y) else 0.0
        return 1.0 if combine(code, x, y) else 0.0

    @njit
    def evaluate(bucket: Any, age: Any, numbers: Any) -> Any:
        registers, rows = doubles(bucket[f.REGISTERS]), bucket[f.PROGRAM]
        results = words(bucket[f.RESULTS])
        if bucket[f.STEP_REGISTER] >= 0:
            registers[bucket[f.STEP_REGISTER]] = age + 1
        for k in range(bucket[f.OPERATIONS]):
            row = words(rows + 8 * f.ROW_WORDS * k)
            value = operate(row[0], registers[row[1]], registers[row[2]], registers[row[3]])
            # Where Python would raise an error, or compute a complex number.
            if k < bucket[f.OF_OPTIONS] and not math.isfinite(value):
                return False
            registers[bucket[f.FIRST_RESULT] + k] = value
        rows += 8 * f.ROW_WORDS * bucket[f.OPERATIONS]
        for k in range(bucket[f.CONDITIONS]):
            row = words(rows + 8 * f.ROW_WORDS * k)
            if compare(row[0], registers[row[1]], registers[row[2]]) != (row[3] != 0):
                return False
        for k in range(bucket[f.WIDTH]):
            numbers[k] = registers[results[k]]
        return True

    @njit
    def coefficients(bucket: Any) -> Any:
        """Equal ones are written down once."""
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

    return evaluate, coefficients
