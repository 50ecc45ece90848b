"""Timing on a device that works behind the host's back: contenders take turns in blocks of iterations.

The host waits for the device at the end of a block, not in it, as a training that looks at its loss now and
then. So there are two times: the block's by its number of iterations, in which all that was launched is done,
and, in some iterations before, how long a call of ``step()`` keeps the host, which only launches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import NamedTuple

import torch

from ..timing import Call, Pace, Spread, ratio, rotated, spread


class Sample(NamedTuple):
    """Of one block, in nanoseconds.

    Attributes:
        host: of one call of ``step()`` until it returns, the median of some before whom the device was idle.
        whole: of one iteration: the block, until the device has done everything, by its iterations.
    """

    host: float
    whole: float


class Times(NamedTuple):
    """Of a contender in microseconds, or of two how many times longer the first one takes."""

    host: Spread
    whole: Spread


PROBES = 3  # iterations that time the host
Block = Callable[[int], Sample]
Samples = Mapping[str, list[Sample]]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def block_of(device: torch.device, step: Call, before: Call | None = None) -> Block:
    """Iterations that end with a ``step()``, with nothing or with ``before``, a forward and backward pass."""

    def block(count: int) -> Sample:
        hosts = []
        for _ in range(PROBES):
            if before is not None:
                before()
            wait(device)  # a full queue would keep the host in whatever it calls next
            called = perf_counter_ns()
            step()
            hosts.append(perf_counter_ns() - called)
        wait(device)
        start = perf_counter_ns()
        for _ in range(count):
            if before is not None:
                before()
            step()
        wait(device)
        return Sample(median(hosts), (perf_counter_ns() - start) / count)

    return block


def in_turns(contenders: Mapping[str, Block], pace: Pace, least: int, most: int) -> Samples:
    """Blocks of ``least`` to ``most`` iterations until the time is up.

    What comes first in each, to time the host, also fills its caches, which held another contender.
    """
    names, counts = list(contenders), {}
    for name, block in contenders.items():
        block(3)  # states are created, kernels compiled, plans made
        fitting = round(pace.turn_seconds * 1e9 / block(3).whole)
        counts[name] = min(max(fitting, least), most)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    gc.collect()
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        done, deadline = 0, perf_counter() + pace.seconds
        while done < pace.least_rounds or perf_counter() < deadline:
            for name in rotated(names, done):
                samples[name].append(contenders[name](counts[name]))
            done += 1
    finally:
        if was_collecting:
            gc.enable()
    return samples


def times_of(samples: Samples) -> dict[str, Times]:
    return {
        name: Times(
            spread(sample.host / 1000 for sample in mine), spread(sample.whole / 1000 for sample in mine)
        )
        for name, mine in samples.items()
    }


def ratios_of(samples: Samples, ours: str) -> dict[str, Times]:
    """Everybody's times by ours, formed within a round: above one, ours is faster."""

    def rounds(name: str, part: int) -> list[list[int]]:
        return [[round(sample[part])] for sample in samples[name]]

    return {
        name: Times(*(ratio(rounds(name, part), rounds(ours, part)) for part in (0, 1)))
        for name in samples
        if name != ours and ours in samples
    }
