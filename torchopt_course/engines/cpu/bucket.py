"""The fused CPU engine: one pass over all tensors of a group, compiled from the rule by numba.

The kernel reads parameter, gradient and states once, applies the rule, writes back once. It takes
addresses, so one call updates all tensors of a bucket, and a large bucket is shared between torch's own
threads. Every element is computed by the same scalar formula without contraction
or reassociation: results do not depend on the number of threads. float16 and bfloat16 are read, computed as
float32, and rounded once, when they are written, in one of the ways of :mod:`..storage`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import eight_bits
from ..bucket import Ahead, Bucket, Candidate, Coefficients, GroupOptions, Part, Scaling, Specialize, Update
from ..fused import kernel_program, why_not_fused
from ..local import LocalGroup, State
from ..native import frame as f
from ..native import step as native
from ..native.compiler import Address, callable_at
from ..rule.number_program import NumberProgram
from ..rule.parsed import Specialization
from ..rule.program import Program
from ..rule.searches import Search
from ..rule.sweeps import sweeps
from .kernel import kernel
from .reductions import BLOCK, whole
from .storage import KINDS

# A thread's part of one tensor has at least so many elements.
LEAST_SHARE = 1024


class Pass(NamedTuple):
    """One call of a kernel.

    Attributes:
        kernel: the words of the frame that say which.
        width: how many numbers it reads.
        numbers: one set of coefficients after the other.
        sets: which set each parameter uses; -1 for those that are left out.
    """

    kernel: Mapping[int, int]
    width: int
    numbers: list[float]
    sets: np.ndarray[Any, np.dtype[np.int64]]


class CpuBucket(Bucket):
    """The tensors of one dtype in one parameter group, for the fused CPU engine."""

    ENGINE = "fused CPU engine"
    IS_FUSED = True

    @classmethod
    def serves(cls, device: str) -> bool:
        return device == "cpu"

    @classmethod
    def refuses(cls, candidate: Candidate, options: GroupOptions) -> str | None:
        mixed = options.rounding is not None
        return options.refusal or why_not_fused(candidate, "cpu", KINDS, mixed=mixed)

    def _set_up(self, params: Sequence[Tensor], state: Mapping[Tensor, State]) -> None:
        self._kernels: dict[Program, Mapping[int, int]] = {}
        self._partials: dict[Program, Any] = {}  # what the blocks of all tensors give to reductions
        self._places: dict[Program, Any] = {}  # where among these the results of a search stand
        # Threads cut tensors where cache lines end; where a rule reduces, no block is cut.
        self._grain = eight_bits.BLOCK if self._scales else 64
        self._arrays: dict[int, Any] = {}  # what the frame has the addresses of
        rows = np.array([(i, 0, size) for i, size in enumerate(self._sizes)], dtype=np.int64)
        starts = np.arange(len(rows) + 1, dtype=np.int64)
        counts = self._block_counts = -(-self._sizes // BLOCK)
        blocks = np.stack([np.cumsum(counts) - counts, self._sizes], axis=1)
        self._put({f.WORK: rows, f.ROWS: starts, f.BLOCKS: blocks}, {f.ELEMENTS: self._sizes.sum()})

    def _put(self, arrays: Mapping[int, Any], numbers: Mapping[int, Any]) -> None:
        """Write into the frame that compiled code reads."""
        self._arrays |= arrays
        for word, array in arrays.items():
            self.guards.frame[word] = array.ctypes.data
        for word, number in numbers.items():
            self.guards.frame[word] = number

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        # The host knows of an overflow and has undone the scale: nothing of `scaling` is left to do.
        keys = None if local.chance is None else local.chance.keys(self.positions)
        passes = [each for each in self._passes(coefficients, specialize, keys).values() if each]
        if not native.is_ready():
            return partial(self._run_from_python, passes)
        self.guards.frame[f.PROGRAM] = 0
        self.settle(native.prepare(self.guards.address))
        return partial(self._run, passes)

    def settle(self, verdict: int) -> None:
        """Do what a step that is being prepared cannot do without, until it holds."""
        while verdict != f.HOLDS:
            if verdict == f.THREADS_CHANGED:
                self._share(torch.get_num_threads())
            else:
                assert verdict == f.MEMORY_MOVED, verdict
                self._find_overlaps()
            verdict = native.prepare(self.guards.address)

    @property
    def has_moved(self) -> bool:
        return False  # it finds out itself what shares memory, and steps that one by one

    def prepare_ahead(self, specialization: Specialization, coefficients: NumberProgram) -> Ahead:
        searches = [self.kernel(specialization, i) for i in range(len(specialization.searches))]
        return Ahead(self.kernel(specialization), searches=searches)

    def search(
        self,
        number: int,
        local: LocalGroup,
        coefficients: Coefficients,
        specialize: Specialize,
        scaling: Scaling | None,
    ) -> list[Part]:
        passes = self._passes(coefficients, specialize, None, number)
        if native.is_ready():
            self.guards.frame[f.PROGRAM] = 0
            self.settle(native.prepare(self.guards.address))
        parts = []
        for specialization, visit in passes.items():
            if visit is None:
                parts.append(Part(()))
                continue
            if native.is_ready():
                self._put_pass(visit)
                native.visit(self.guards.address)
            else:
                self._visit_from_python(visit)
            is_last = number + 1 == len(specialization.searches)
            parts.append(self._part(specialization.searches[number], visit, is_last))
        return parts

    def _part(self, search: Search, visit: Pass, is_last: bool) -> Part:
        """What the blocks of all tensors have given, put together in order."""
        program, stepped = search.program, visit.sets >= 0
        blocks = self._partials[program].reshape(-1, len(program.reductions))
        if not stepped.all():
            blocks = blocks[np.repeat(stepped, self._block_counts)]
        size = int(self._sizes[stepped].sum())
        places = _places(program)
        values = [whole(program.reductions[place].word, blocks[:, place], size) for place in places]
        return Part(search.wanted, values, size, is_last)

    def kernel(self, specialization: Specialization, number: int | None = None) -> Mapping[int, int]:
        """The machine code for a specialization of the rule, as words of the frame.

        Args:
            number: of a search; ``None``: for the update.

        Raises:
            CompilationError: it cannot be compiled.
        """
        program = kernel_program(specialization, number)
        words = self._kernels.get(program)
        if words is None:
            address: Address = kernel(specialization, program, self._stored, self._step_dtype, self._rounding)
            width = len(program.reductions)
            partials = self._partials[program] = np.zeros(int(self._block_counts.sum()) * max(width, 1))
            places = self._places[program] = np.array([*_places(program), 0], dtype=np.int64)
            words = self._kernels[program] = {
                f.KERNEL: address,
                f.SWEEPS: len(sweeps(program)),
                f.PARTIALS: partials.ctypes.data,
                f.REDUCTIONS: width,
                f.PLACES: places.ctypes.data,
            }
            if width and self._grain != BLOCK:
                self._grain = BLOCK
                self.guards.frame[f.PARTS] = 0  # the work is to be shared anew
        return words

    def _passes(
        self,
        coefficients: Coefficients,
        specialize: Specialize,
        keys: np.ndarray[Any, np.dtype[np.int64]] | None,
        number: int | None = None,
    ) -> dict[Specialization, Pass | None]:
        """One pass for each specialization of the rule: parameters of other ages may need another one.

        Where chance rounds, each parameter has a set of its own, which ends with its ``keys``. In a search
        there is none for a specialization that has no more to search for.
        """
        passes: dict[Specialization, Pass | None] = {}
        for age, mine in self._by_age():
            values = coefficients(age)
            specialization = specialize(values)
            program = specialization.stage(number)
            if program is None and number is not None:
                passes[specialization] = None
                continue
            words = self.kernel(specialization, number)
            numbers = [float(value) for value in program.values(values).values()]  # type: ignore[union-attr]
            found = passes.get(specialization)
            if found is None:
                nobody = np.full(len(mine), -1, dtype=np.int64)
                found = passes[specialization] = Pass(words, len(numbers), [], nobody)
            if keys is None:
                found.sets[mine] = len(found.numbers) // max(len(numbers), 1)
                found.numbers.extend(numbers)
                continue
            for i in np.flatnonzero(mine):
                found.sets[i] = len(found.numbers) // (len(numbers) + 2)
                found.numbers.extend([*numbers, *map(float, keys[i])])
        return passes

    def _put_pass(self, visit: Pass) -> None:
        arrays = {f.NUMBERS: np.array([*visit.numbers, 0.0]), f.SETS: visit.sets}
        self._put(arrays, {**visit.kernel, f.WIDTH: visit.width})

    def _run(self, passes: list[Pass]) -> None:
        """Update all parameters and states in place, as prepared."""
        # Each pass empties the lists, and other threads run meanwhile: what is in use stays alive.
        used = [*self.guards.written, *self.guards.read]
        for visit in passes:
            self._put_pass(visit)
            native.run(self.guards.address)
        del used

    def _run_from_python(self, passes: list[Pass]) -> None:
        """The same, while there is no compiled code but the kernels: on one thread."""
        for visit in passes:
            self._visit_from_python(visit)
        torch.autograd.graph.increment_version(self.guards.written)
        self.guards.written.clear()
        self.guards.read.clear()
        if not self._counts_steps:
            self.guards.ages[self.guards.absent == 0] = 1

    def _visit_from_python(self, visit: Pass) -> None:
        work, given = self._arrays[f.WORK], np.array([*visit.numbers, 0.0])
        kernel = callable_at(visit.kernel[f.KERNEL], 9, holds_gil=False)
        addresses = [array.ctypes.data for array in (self.guards.table, work, given, visit.sets)]
        reduced = visit.kernel[f.PARTIALS], self._arrays[f.BLOCKS].ctypes.data
        for sweep in range(visit.kernel[f.SWEEPS]):
            kernel(*addresses, sweep, *reduced, 0, len(work))

    def _share(self, threads: int) -> None:
        """Cut the work for so many threads: each gets its part of each tensor that is worth it.

        torch shares its own operations so, which means that a thread finds its part of a gradient in the
        cache of its core.
        """
        parts: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
        loads = [0] * threads
        for i, size in enumerate(self._sizes.tolist()):
            if size < threads * LEAST_SHARE:
                lightest = loads.index(min(loads))
                parts[lightest].append((i, 0, size))
                loads[lightest] += size
                continue
            cuts = [size * t // threads // self._grain * self._grain for t in range(threads)] + [size]
            for t, (start, stop) in enumerate(itertools.pairwise(cuts)):
                parts[t].append((i, start, stop - start))
                loads[t] += stop - start
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        work = np.array([row for part in parts for row in part], dtype=np.int64)
        self._put({f.SHARED_WORK: work, f.SHARED_STARTS: starts}, {f.PARTS: threads})

    def _find_overlaps(self) -> None:
        """Where two tensors share memory the order of updates counts, and one thread does it."""
        columns = [0, *range(2, self.guards.table.shape[1] - self._counts_steps)]
        starts = self.guards.table[:, columns].ravel()
        sizes = self._sizes * self._stored[1].itemsize
        widths = np.array([self._stored[column].itemsize for column in columns])
        counts = [self._sizes] * (len(columns) - len(self._scales))
        counts += [-(-self._sizes // eight_bits.BLOCK)] * len(self._scales)
        bounds = np.stack([starts, starts + (np.stack(counts, axis=1) * widths).ravel()], axis=1)
        bounds = bounds[(starts != 0) & (bounds[:, 0] < bounds[:, 1])]
        bounds = bounds[np.argsort(bounds[:, 0])]
        overlap = (bounds[:-1, 1] > bounds[1:, 0]).any()
        numbers = {
            f.BOUND_COUNT: len(bounds),
            f.TARGETS_OVERLAP: overlap,
            f.TARGETS_MOVED: 0,
            f.GRADS_MOVED: 1,
        }
        self._put({f.BOUNDS: np.concatenate([bounds.ravel(), sizes])}, numbers)


def _places(program: Program) -> list[int]:
    """Which of its reductions the results of a search are."""
    reductions = [line.out for line in program.reductions]
    return [reductions.index(name) for name in program.results] if program.is_search else []
