"""Operator by operator, each in a process of its own: what kills it is the operator's fault alone.

A process that is forked cannot use a GPU, and another one takes seconds to begin. There each process judges
operator after operator, until one of them has spoiled the GPU for it.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import torch

from .cases import DEVICE, cases_of
from .verdict import CRASH, EQUAL, REFUSED, SKIPPED, WRONG, judge

LASTING = DEVICE != "cpu"
CONTEXT: Any = multiprocessing.get_context("spawn" if LASTING else "fork")
MINUTES = 10  # without an answer


@dataclass
class Report:
    """What came of one operator or module."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)  # of each case that is not equal
    reasons: Counter[str] = field(default_factory=Counter)  # why cases were refused
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What is wrong or crashes."""
        return [note for note in self.notes if note.startswith((WRONG, CRASH))]

    @property
    def kind(self) -> str:
        """ "whole", "in part", "refused", "none" (torch has nothing to compare with) or "FAULT"."""
        judged = {kind for kind in self.counts if kind != SKIPPED}
        if judged & {WRONG, CRASH}:
            return "FAULT"
        if judged == {EQUAL}:
            return "whole"
        return "none" if not judged else "refused" if judged == {REFUSED} else "in part"


def report(name: str, most: int) -> Report:
    torch.set_num_threads(1)
    result, start = Report(name), time.perf_counter()
    # At corners last: on a GPU torch ends at a probability of -1, and so does all that would come after it.
    for case in sorted(cases_of(name, most), key=lambda case: case.form.startswith("at corners")):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            verdict = judge(case)
        result.counts[verdict.kind] += 1
        if verdict.kind == REFUSED:
            result.reasons[verdict.note] += 1
        if verdict.kind in (WRONG, CRASH, REFUSED):
            result.notes.append(f"{verdict.kind} {case}: {verdict.note}")
        if verdict.kind in (SKIPPED, CRASH) and not device_answers():
            break
    result.seconds = time.perf_counter() - start
    return result


def device_answers() -> bool:
    """After an assertion of one of its kernels a GPU answers nothing else in this process."""
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
    return True


def reports(
    names: Iterable[str], most: int, processes: int = 2, seconds: float = math.inf
) -> Iterator[Report]:
    """As they are finished, some at a time."""
    for name, found in in_processes(partial(report, most=most), names, processes, seconds):
        if isinstance(found, Ended):
            found = Report(name, Counter({CRASH: 1}), [f"{CRASH} {name}: {found}"])
        yield found


@dataclass(frozen=True)
class Ended:
    """A process that gave no result, and why."""

    why: str

    def __str__(self) -> str:
        return self.why


def in_processes(
    work: Callable[[Any], Any], items: Iterable[Any], processes: int = 2, seconds: float = math.inf
) -> Iterator[tuple[Any, Any]]:
    """Each item with what ``work`` makes of it in another process (or :class:`Ended`), as finished.

    After so many seconds the processes are ended, whatever they are at; of that nothing is said.
    """
    waiting, end = iter(items), time.monotonic() + seconds
    running: dict[Any, tuple[Any, Any]] = {}
    idle: list[tuple[Any, Any]] = []
    nothing = object()
    while True:
        while len(running) < processes and (item := next(waiting, nothing)) is not nothing:
            channel, process = idle.pop() if idle else _begun(work)
            channel.send(item)
            running[channel] = item, process
        remaining = end - time.monotonic()
        ready = wait(list(running), timeout=max(0, min(MINUTES * 60, remaining))) if running else []
        if not running or time.monotonic() > end:
            for _, process in [*idle, *running.values()]:
                process.kill()
                process.join()
            return
        for channel in ready or list(running):
            item, process = running.pop(channel)
            if not channel.poll():
                process.kill()
                process.join()
                yield item, Ended(f"{MINUTES} minutes without an answer")
                continue
            try:
                result, goes_on = channel.recv()
            except EOFError:
                process.join()
                result, goes_on = Ended(f"the process was ended by {_ended_by(process.exitcode)}"), False
            if goes_on:
                idle.append((channel, process))
            else:
                process.join()
            yield item, result


def _ended_by(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"an error (exit status {code})"


def _begun(work: Callable[[Any], Any]) -> tuple[Any, Any]:
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(work, there), daemon=True)
    process.start()
    there.close()
    return here, process


def _serve(work: Callable[[Any], Any], channel: Any) -> None:
    goes_on = True
    while goes_on:
        result = work(channel.recv())
        goes_on = LASTING and device_answers()
        channel.send((result, goes_on))
