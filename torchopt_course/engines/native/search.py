"""The compiled search for numbers over several tensors, see :mod:`..several` for what it is in Python.

A search is a stage of each bucket, as the update is: kernel, numbers, and where the blocks of its tensors are
written down. These are put together here in the same order as there, so both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import frame as f


def build(evaluate: Any, coefficients: Any, visit: Any) -> Callable[..., Any]:
    """``search(api, frame)``, which leaves each bucket ready for its update; gives a verdict.

    Args:
        evaluate, coefficients: of :mod:`.numbers`.
        visit: of :mod:`.update`.
    """
    import numba

    from ..cpu import reductions
    from .intrinsics import njit, pointer_to

    words, doubles = pointer_to(numba.int64), pointer_to(numba.float64)
    larger, smaller, block_size = njit(reductions.larger), njit(reductions.smaller), reductions.BLOCK

    @njit
    def put(bucket: Any, stage: Any) -> Any:
        row = words(bucket[f.STAGES] + 8 * f.STAGE_WORDS * stage)
        for k in range(f.STAGE_WORDS):
            bucket[f.KERNEL + k] = row[k]

    @njit
    def joined(word: Any, a: Any, x: Any) -> Any:
        if word == f.LARGEST:
            return larger(a, x)
        if word == f.SMALLEST:
            return smaller(a, x)
        return a + x

    @njit
    def beginning(word: Any) -> Any:
        return -math.inf if word == f.LARGEST else math.inf if word == f.SMALLEST else 0.0

    @njit
    def finished(word: Any, total: Any, count: Any) -> Any:
        """What all that was joined comes to; a mean is left a sum."""
        if word == f.LENGTH_OF:
            return math.sqrt(total)
        if word == f.ANY_OF:
            return 1.0 if total > 0 else 0.0
        if word == f.ALL_OF:
            return 1.0 if total == count else 0.0
        return total

    @njit
    def of_bucket(bucket: Any, word: Any, place: Any) -> Any:
        """What the blocks of a bucket's tensors give, as :func:`..cpu.reductions.whole`; and its elements."""
        partials, blocks, sets = doubles(bucket[f.PARTIALS]), words(bucket[f.BLOCKS]), words(bucket[f.SETS])
        width, column = bucket[f.REDUCTIONS], words(bucket[f.PLACES])[place]
        value, size = beginning(word), 0
        for i in range(bucket[f.COUNT]):
            if sets[i] < 0:
                continue
            first, elements = blocks[2 * i], blocks[2 * i + 1]
            size += elements
            for block in range(first, first + (elements + block_size - 1) // block_size):
                value = joined(word, value, partials[block * width + column])
        return finished(word, value, size), size

    @njit
    def find(buckets: Any, begin: Any, end: Any, wanted: Any) -> Any:
        """One number, over the tensors of some buckets, which all get it."""
        word, total, size, count = wanted[f.WORD], beginning(wanted[f.WORD]), 0, 0.0
        for k in range(begin, end):
            bucket = words(buckets[k])
            if bucket[f.PRESENT]:
                value, elements = of_bucket(bucket, word, wanted[f.PART])
                size += elements
                count += 1
                total = joined(word, total, value * value if word == f.LENGTH_OF else value)
        total = total / size if word == f.MEAN_OF else finished(word, total, count)
        for k in range(begin, end):
            bucket = words(buckets[k])
            doubles(bucket[f.REGISTERS])[bucket[f.FOUND] + wanted[f.NUMBER]] = total

    @njit
    def find_all(frame: Any, stage: Any) -> Any:
        """What the search of a stage was for: numbers of each group, or of all."""
        groups, buckets = words(frame[f.GROUPS]), words(frame[f.BUCKETS])
        for k in range(frame[f.WANTED_COUNT]):
            wanted = words(frame[f.WANTED] + 8 * f.WANTED_WORDS * k)
            if wanted[f.SEARCH] != stage:
                continue
            if wanted[f.OVER_ALL]:
                find(buckets, 0, frame[f.BUCKET_COUNT], wanted)
                continue
            for i in range(frame[f.GROUP_COUNT]):
                group = words(groups[i])
                find(buckets, group[f.BUCKETS_FROM], group[f.BUCKETS_TO], wanted)

    @njit
    def each_bucket(api: Any, frame: Any, stage: Any) -> Any:
        """Put a stage into the buckets; if it is a search, visit their tensors."""
        buckets = words(frame[f.BUCKETS])
        for k in range(frame[f.BUCKET_COUNT]):
            bucket = words(buckets[k])
            put(bucket, stage)
            if not coefficients(bucket):
                return f.COEFFICIENTS
            if stage < frame[f.SEARCHES] and bucket[f.PRESENT]:
                visit(api, bucket)
        return f.HOLDS

    @njit
    def oldest(frame: Any) -> Any:
        """The most steps that a parameter has taken that is stepped; -1 if a bucket has none."""
        buckets, age = words(frame[f.BUCKETS]), 0.0
        for k in range(frame[f.BUCKET_COUNT]):
            bucket = words(buckets[k])
            if bucket[f.PRESENT] == 0:
                return -1.0
            ages, absent = doubles(bucket[f.AGES]), words(bucket[f.ABSENT])
            for j in range(bucket[f.COUNT]):
                if not absent[j]:
                    age = max(age, ages[j])
        return age

    @njit
    def renew(frame: Any) -> Any:
        """Write down the options that rules renew, for Python to set; their stage is the last."""
        groups, buckets, age = words(frame[f.GROUPS]), words(frame[f.BUCKETS]), oldest(frame)
        if age < 0:
            return f.CHANGED
        for i in range(frame[f.GROUP_COUNT]):
            group = words(groups[i])
            bucket = words(buckets[group[f.BUCKETS_FROM]])
            put(bucket, frame[f.SEARCHES] + 1)
            if not evaluate(bucket, age, doubles(group[f.RENEWED])):
                return f.COEFFICIENTS
            put(bucket, frame[f.SEARCHES])
        return f.HOLDS

    def search(api: Any, frame: Any) -> Any:
        for stage in range(frame[f.SEARCHES] + 1):
            verdict = each_bucket(api, frame, stage)
            if verdict != f.HOLDS:
                return verdict
            find_all(frame, stage)
        return renew(frame) if frame[f.RENEWS] else f.HOLDS

    return search
