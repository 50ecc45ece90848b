"""A step prepared ahead: one native call, for groups whose parameters all have an engine that can say so.

When a step has gone the usual way, everything that the next one needs is put into frames: what to ask of
the options and tensors, how to compute the coefficients, which kernel to call (:mod:`.prepared_group`). If
the answers are as expected the next step is a single call of compiled code (:mod:`.native.step`); where an
engine has no kernel, but operations of torch, these follow. If not, nothing has happened, and it goes the
usual way again. A schedule that changes ``lr`` or ``betas`` is no change: numbers are read in each step.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .group import Group
from .interception import interceptor
from .native import frame as f
from .native import step as native
from .prepared_group import Optimizer, PreparedGroup
from .register_code import ImpossibleError
from .rule.searches import Wanted

# So often the time until a step is prepared again is doubled.
MOST_DOUBLED = 7


class PreparedStep:
    """The frames of all groups of an optimizer.

    Attributes:
        has_held: whether a step has been taken by it.
    """

    def __init__(self, optimizer: Optimizer, groups: Sequence[Group]) -> None:
        if not native.can_look() or not native.is_ready():
            raise ImpossibleError
        firsts = itertools.accumulate((len(group.buckets) for group in groups), initial=0)
        self._groups = [
            PreparedGroup(optimizer, group, first) for group, first in zip(groups, firsts, strict=False)
        ]
        buckets = [bucket.guards.address for group in self._groups for bucket in group.buckets]
        self._addresses = np.array([*(group.address for group in self._groups), *buckets], dtype=np.int64)
        self._frame = np.zeros(f.ALL_WORDS, dtype=np.int64)
        self._address = int(self._frame.ctypes.data)
        self._renews = optimizer._parsed_rule.renews
        searches = self._groups[0].searches
        if any(group.searches != searches for group in self._groups):
            raise ImpossibleError
        self._wanted = _rows(searches)
        for word, value in {
            f.GROUP_COUNT: len(groups),
            f.GROUPS: self._addresses.ctypes.data,
            f.BUCKET_COUNT: len(buckets),
            f.BUCKETS: self._addresses[len(groups) :].ctypes.data,
            f.SEARCHES: len(searches),
            f.WANTED: self._wanted.ctypes.data,
            f.WANTED_COUNT: len(self._wanted),
            f.RENEWS: len(self._renews),
        }.items():
            self._frame[word] = value
        self._is_compiled = all(group.is_compiled for group in self._groups)
        devices = {device for group in self._groups for device in group.devices}
        self._is_on_cuda, self._is_elsewhere = "cuda" in devices, bool(devices - {"cpu", "cuda"})
        self._ask = native.step if self._is_compiled else native.ready
        self._needs_another = self.has_held = False
        cls = type(optimizer)
        self._rule, self._coefficients = cls.rule, cls.coefficients
        programs = [program.reads for group in self._groups for program in group.programs]
        self._reads = [
            watched for reads in (optimizer._parsed_rule.reads, *programs) for watched in reads.watched
        ]

    @staticmethod
    def of(optimizer: Optimizer, groups: Sequence[Group], before: PreparedStep | None) -> PreparedStep | None:
        """What was prepared ``before`` if it still fits, or else anew; ``None`` if that is impossible."""
        if before is not None and before._fits(groups):
            for group in before._groups:
                group.arm()
            return before
        try:
            prepared = PreparedStep(optimizer, groups)
        except Exception:  # what a rule has against the next step, it will say in the next step
            return None
        for group in prepared._groups:
            group.arm()
        return prepared

    def take(self, optimizer: Optimizer) -> bool:
        """Take the step; false if nothing has happened."""
        cls, groups, state = type(optimizer), optimizer.param_groups, optimizer.state
        if cls.rule is not self._rule or cls.coefficients is not self._coefficients:
            return False
        if "found_inf" in optimizer.__dict__ or type(groups) is not list or not isinstance(state, dict):
            return False
        for read, value in self._reads:
            if read() is not value:
                return False
        if interceptor() is not None or (self._is_on_cuda and torch.cuda.is_current_stream_capturing()):
            return False
        try:
            verdict = self._ask(self._address, groups, state)
        except Exception:  # a tensor without memory, on a device unknown to DLPack, ...
            return False
        if verdict == f.HOLDS and (self._is_compiled or self._by_torch(optimizer)):
            self.has_held = True
            if self._renews:
                for options, group in zip(groups, self._groups, strict=True):
                    options.update(zip(self._renews, group.renewed.tolist(), strict=False))
            return True
        self._needs_another = verdict in (f.OPTIONS, f.COEFFICIENTS)
        return False

    def _fits(self, groups: Sequence[Group]) -> bool:
        if self._needs_another or not all(read() is value for read, value in self._reads):
            return False
        if len(groups) != len(self._groups):
            return False
        return all(mine.fits(group) for mine, group in zip(self._groups, groups, strict=True))

    def _by_torch(self, optimizer: Optimizer) -> bool:
        """The updates of which torch does some, after all guards have been found to hold."""
        if self._is_elsewhere:
            optimizer._capture_health_check()
        updates = []
        for group in self._groups:
            for prepared in group.updates:
                if (update := prepared()) is None:
                    return False
                updates.append(update)
        recording = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            for update in updates:
                update()
        finally:
            torch._C._set_grad_enabled(recording)
        return True


def _rows(searches: Sequence[Sequence[Wanted]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers that are wanted, as rows for compiled code; those of each search follow one another."""
    every = [(number, part, one) for number, wanted in enumerate(searches) for part, one in enumerate(wanted)]
    rows = [
        (number, part, one.number, f.WANTED_CODES[one.word], one.over == "all") for number, part, one in every
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, f.WANTED_WORDS)


class Preparation:
    """Prepares the next step after each one that went the usual way.

    What makes that vain seldom goes away: to find out costs, and is put off for longer each time.
    """

    def __init__(self) -> None:
        self._failures = self._pause = 0  # how often in a row it was vain; steps until it is tried again

    def of_next(
        self, optimizer: Optimizer, groups: Sequence[Group], before: PreparedStep | None
    ) -> PreparedStep | None:
        """The next step; ``None`` if it has to go the usual way.

        Args:
            before: what had been prepared for this one.
        """
        if self._pause:
            self._pause -= 1
            return before
        is_vain = before is not None and not before.has_held
        prepared = None if is_vain else PreparedStep.of(optimizer, groups, before)
        if before is not None and before.has_held:
            self._failures = 0
        if prepared is None:
            self._failures = min(self._failures + 1, MOST_DOUBLED)
            self._pause = 2**self._failures - 1
        return prepared
