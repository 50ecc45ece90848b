"""Operator by operator, each in a process of its own: what kills it is the operator's fault alone."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
    waiting = iter(names)
    running: dict[Any, tuple[str, Any]] = {}
    while True:
        while len(running) < processes and (name := next(waiting, None)) is not None:
            receive, send = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_send, args=(name, most, send))
            process.start()
            send.close()
            running[receive] = name, process
        if not running:
            return
        for channel in wait(list(running), timeout=MINUTES * 60) or list(running):
            name, process = running.pop(channel)
            if channel.poll():
                yield _received(channel, name)
            else:
                process.kill()
                yield Report(name, Counter({CRASH: 1}), [f"{CRASH} {name}: {MINUTES} minutes"])
            process.join()


def _received(channel: Any, name: str) -> Report:
    try:
        result: Report = channel.recv()
    except EOFError:
        return Report(name, Counter({CRASH: 1}), [f"{CRASH} {name}: the process was killed"])
    return result


def _send(name: str, most: int, channel: Any) -> None:
    channel.send(report(name, most))
