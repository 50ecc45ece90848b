"""Operator by operator, each in a process of its own: what kills it is the operator's fault alone."""

from __future__ import annotations

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

from .cases import cases_of
from .verdict import CRASH, EQUAL, REFUSED, SKIPPED, WRONG, judge

FORK = multiprocessing.get_context("fork")
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
    for case in cases_of(name, most):
        verdict = judge(case)
        result.counts[verdict.kind] += 1
        if verdict.kind == REFUSED:
            result.reasons[verdict.note] += 1
        if verdict.kind in (WRONG, CRASH, REFUSED):
            result.notes.append(f"{verdict.kind} {case}: {verdict.note}")
    result.seconds = time.perf_counter() - start
    return result


def reports(names: Iterable[str], most: int, processes: int = 2) -> Iterator[Report]:
    """As they are finished, some at a time."""
    for name, found in in_processes(partial(report, most=most), names, processes):
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
    work: Callable[[Any], Any], items: Iterable[Any], processes: int = 2
) -> Iterator[tuple[Any, Any]]:
    """Each item with what ``work`` makes of it in a process of its own (or :class:`Ended`), as finished."""
    waiting = iter(items)
    running: dict[Any, tuple[Any, Any]] = {}
    nothing = object()
    while True:
        while len(running) < processes and (item := next(waiting, nothing)) is not nothing:
            receive, send = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_send, args=(work, item, send))
            process.start()
            send.close()
            running[receive] = item, process
        if not running:
            return
        for channel in wait(list(running), timeout=MINUTES * 60) or list(running):
            item, process = running.pop(channel)
            if not channel.poll():
                process.kill()
                process.join()
                yield item, Ended(f"{MINUTES} minutes without an answer")
                continue
            try:
                result = channel.recv()
            except EOFError:
                process.join()
                result = Ended(f"the process was ended by {_ended_by(process.exitcode)}")
            process.join()
            yield item, result


def _ended_by(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"an error (exit status {code})"


def _send(work: Callable[[Any], Any], item: Any, channel: Any) -> None:
    channel.send(work(item))
