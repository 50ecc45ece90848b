"""Timing contenders side by side in one process, and what is made of the samples.

Each contender in turn takes several calls in a row, then the next one, round after round: whatever slows the
machine down for a while hits all of them. So that no contender always follows the same quiet moment, each
round starts with another one. The first call of a turn is not counted: it finds the caches full of another
contender's numbers. A ratio is formed within a round, and its median over the rounds is quoted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter, perf_counter_ns
from typing import TypeVar

import numpy as np

Call = Callable[[], object]
T = TypeVar("T")
# Takes so many calls in a row and says what was measured of each.
Turn = Callable[[int], list[T]]
# Nanoseconds of each call: for each contender, for each round.
Samples = Mapping[str, Sequence[Sequence[int]]]

CALLS_IN_A_TURN = 3, 1000  # at least, at most


@dataclass(frozen=True)
class Spread:
    """The median of some numbers and the quartiles around it."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Pace:
    """How long to measure.

    Attributes:
        seconds: for all contenders of a case together.
        least_rounds: even if that takes longer.
        turn_seconds: how long a contender's turn should last.
    """

    seconds: float
    least_rounds: int
    turn_seconds: float = 0.02


def spread(values: Iterable[float]) -> Spread:
    lower, median, upper = np.quantile(list(values), [0.25, 0.5, 0.75]).tolist()
    return Spread(median, lower, upper)


def microseconds(rounds: Sequence[Sequence[int]]) -> Spread:
    """Over all calls of one contender, whatever their round."""
    return spread(nanoseconds / 1000 for turn in rounds for nanoseconds in turn)


def ratio(numerator: Sequence[Sequence[int]], denominator: Sequence[Sequence[int]]) -> Spread:
    """Over the rounds, each with the medians of the two turns in it."""
    pairs = zip(numerator, denominator, strict=True)
    return spread(spread(above).median / spread(below).median for above, below in pairs)


def calls_in_a_turn(nanoseconds: float, turn_seconds: float) -> int:
    """How many calls of this length fill a turn."""
    least, most = CALLS_IN_A_TURN
    return min(max(round(turn_seconds * 1e9 / nanoseconds), least), most)


def rotated(names: Sequence[str], by: int) -> list[str]:
    start = by % len(names)
    return [*names[start:], *names[:start]]


def time_calls(call: Call, count: int) -> list[int]:
    """Nanoseconds of each of ``count`` calls in a row."""
    marks = [perf_counter_ns()]
    for _ in range(count):
        call()
        marks.append(perf_counter_ns())
    return [stop - start for start, stop in pairwise(marks)]


def interleave(contenders: Mapping[str, Call], pace: Pace) -> dict[str, list[list[int]]]:
    """Nanoseconds of each call, of contenders that take turns until the time is up."""
    return take_turns({name: partial(time_calls, call) for name, call in contenders.items()}, pace)


def take_turns(contenders: Mapping[str, Turn[T]], pace: Pace) -> dict[str, list[list[T]]]:
    """What all contenders measure in turns until the time is up. What they do first is not counted.

    The garbage collector rests meanwhile, as in :mod:`timeit`: it would strike whoever is on at the moment.
    """
    names = list(contenders)
    counts = {}
    for name, turn in contenders.items():
        turn(2)  # states are created, kernels compiled, plans made
        counts[name] = calls_in_a_turn(spread(time_calls(partial(turn, 1), 3)).median, pace.turn_seconds)

    samples: dict[str, list[list[T]]] = {name: [] for name in names}
    deadline = perf_counter() + pace.seconds
    was_collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        done = 0
        while done < pace.least_rounds or perf_counter() < deadline:
            for name in rotated(names, done):
                samples[name].append(contenders[name](counts[name] + 1)[1:])
            done += 1
    finally:
        if was_collecting:
            gc.enable()
    return samples
