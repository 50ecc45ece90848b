"""The fused CPU engine: one pass over all tensors of a group, compiled from the rule by numba.

The kernel reads parameter, gradient and states once, applies the rule, writes back once. It takes
addresses, so one call updates all tensors of a bucket, and a large bucket is shared between torch's own
threads. Every element is computed by the same scalar formula without contraction
or reassociation: results do not depend on the number of threads. float16 and bfloat16 are read, computed as
float32, and rounded once, when they are written.
"""

from __future__ import annotations

import itertools
import pkgutil
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bucket import Bucket, Candidate, Coefficients, GroupOptions, Scaling, Specialise, Update
from .fused import why_not_fused
from .local import LocalGroup
from .namespaces import scalars
from .native import frame as f
from .native import step as native
from .native.compiler import Address, CompilationError, NoWord
from .native.compiler import native as compile_native
from .program import STATE, Program
from .rules import Variant

# What is stored, what it is computed in, and the words between the two.
_KINDS = {
    torch.float32: ("float32", "float32", "unchanged", "unchanged"),
    torch.float64: ("float64", "float64", "unchanged", "unchanged"),
    torch.bfloat16: ("uint16", "float32", "widen_bfloat16", "narrow_bfloat16"),
    torch.float16: ("uint16", "float32", "widen_float16", "narrow_float16"),
}
# A thread's part of one tensor has at least so many elements.
LEAST_SHARE = 1024


class Pass(NamedTuple):
    """One call of a kernel.

    Attributes:
        kernel: its address.
        width: how many numbers it reads.
        numbers: one set of coefficients after the other.
        sets: which set each parameter uses; -1 for those that are left out.
    """

    kernel: Address
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
        return options.refusal or why_not_fused(candidate, "cpu", _KINDS)

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        *,
        counts_steps: bool,
        ages: Sequence[int],
    ) -> None:
        native.make_ready()
        super().__init__(positions, params, state, names, counts_steps=counts_steps, ages=ages)
        self._kernels: dict[Variant, Address] = {}
        self._arrays: dict[int, Any] = {}  # what the frame has the addresses of
        rows = np.array([(i, 0, size) for i, size in enumerate(self._sizes)], dtype=np.int64)
        starts = np.array([0, len(rows)], dtype=np.int64)
        self._put({f.WORK: rows, f.ROWS: starts}, {f.ELEMENTS: self._sizes.sum()})

    def _put(self, arrays: Mapping[int, Any], numbers: Mapping[int, Any]) -> None:
        """Write into the frame that compiled code reads."""
        self._arrays |= arrays
        for word, array in arrays.items():
            self.guards.frame[word] = array.ctypes.data
        for word, number in numbers.items():
            self.guards.frame[word] = number

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None
    ) -> Update:
        # The host knows of an overflow and has undone the scale: nothing of `scaling` is left to do.
        passes = self._passes(coefficients, specialise)
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

    def kernel(self, variant: Variant) -> Address:
        """The machine code for a variant of the rule.

        Raises:
            CompilationError: it cannot be compiled.
        """
        address = self._kernels.get(variant)
        if address is None:
            address = self._kernels[variant] = kernel(variant, self._dtype, self._step_dtype)
        return address

    def _passes(self, coefficients: Coefficients, specialise: Specialise) -> list[Pass]:
        """One pass for each variant of the rule: parameters of other ages may need another one."""
        passes: dict[Variant, Pass] = {}
        for age, mine in self._by_age():
            values = coefficients(age)
            variant = specialise(values)
            address = self.kernel(variant)
            numbers = [float(value) for value in variant.program.values(values).values()]  # type: ignore[union-attr]
            if variant not in passes:
                nobody = np.full(len(mine), -1, dtype=np.int64)
                passes[variant] = Pass(address, len(numbers), [], nobody)
            passes[variant].sets[mine] = len(passes[variant].numbers) // max(len(numbers), 1)
            passes[variant].numbers.extend(numbers)
        return list(passes.values())

    def _run(self, passes: list[Pass]) -> None:
        """Update all parameters and states in place, as prepared."""
        for kernel, width, numbers, sets in passes:
            arrays = {f.NUMBERS: np.array([*numbers, 0.0]), f.SETS: sets}
            self._put(arrays, {f.KERNEL: kernel, f.WIDTH: width})
            native.run(self.guards.address)

    def _share(self, threads: int) -> None:
        """Cut the work for so many threads: each gets its part of each tensor that is worth it.

        torch shares its own operations so, which means that a thread finds its part of a gradient in the cache
        of its core.
        """
        parts: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
        loads = [0] * threads
        for i, size in enumerate(self._sizes.tolist()):
            if size < threads * LEAST_SHARE:
                lightest = loads.index(min(loads))
                parts[lightest].append((i, 0, size))
                loads[lightest] += size
                continue
            # Cut where cache lines end.
            cuts = [size * t // threads // 64 * 64 for t in range(threads)] + [size]
            for t, (start, stop) in enumerate(itertools.pairwise(cuts)):
                parts[t].append((i, start * self._dtype.itemsize, stop - start))
                loads[t] += stop - start
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        work = np.array([row for part in parts for row in part], dtype=np.int64)
        self._put({f.SHARED_WORK: work, f.SHARED_STARTS: starts}, {f.PARTS: threads})

    def _find_overlaps(self) -> None:
        """Where two tensors share memory the order of updates counts, and one thread does it."""
        columns = [0, *range(2, self.guards.table.shape[1] - self._counts_steps)]
        starts = self.guards.table[:, columns].ravel()
        sizes = self._sizes * self._dtype.itemsize
        bounds = np.stack([starts, starts + np.repeat(sizes, len(columns))], axis=1)
        bounds = bounds[(starts != 0) & (bounds[:, 0] < bounds[:, 1])]
        bounds = bounds[np.argsort(bounds[:, 0])]
        overlap = (bounds[:-1, 1] > bounds[1:, 0]).any()
        numbers = {f.BOUND_COUNT: len(bounds), f.TARGETS_OVERLAP: overlap, f.TARGETS_MOVED: 0, f.GRADS_MOVED: 1}
        self._put({f.BOUNDS: np.concatenate([bounds.ravel(), sizes])}, numbers)


def kernel(variant: Variant, dtype: torch.dtype, step_dtype: torch.dtype | None) -> Address:
    """Compile a variant of a rule, or take it from the cache.

    Raises:
        CompilationError: it cannot be compiled.
    """
    if variant.program is None:
        raise NoWord(variant.reason)
    if dtype == torch.float16 and not _has_float16():
        raise CompilationError("this processor has no instructions for float16")
    step_real = _KINDS[step_dtype][0] if step_dtype else None
    text = kernel_source(variant.program, variant.states, counts_steps=step_real is not None)
    name = "".join(c if c.isalnum() else "_" for c in variant.formula.rule.__qualname__)
    # The text is all that there is to know of the rule.
    inputs = "\n".join((str(dtype), str(step_real), text, _OWN_CODE))
    return compile_native(name, inputs, lambda: _build(text, dtype, step_real), 6)


_OWN_CODE = repr([pkgutil.get_data(__package__, file) for file in ("cpu.py", "namespaces/scalars.py")])


def _has_float16() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("f16c")) or platform.machine() in ("aarch64", "arm64")


def _build(source: str, dtype: torch.dtype, step_real: str | None) -> Callable[..., Any]:
    import numba

    from .native import intrinsics

    stored, real, read, write = _KINDS[dtype]
    pointer_to = intrinsics.pointer_to
    names = {
        **scalars.NAMES,
        "__name__": __name__,
        "integers": pointer_to(numba.int64),
        "doubles": pointer_to(numba.float64),
        "stored": pointer_to(getattr(numba, stored)),
        "steps": pointer_to(getattr(numba, step_real or "float32")),
        "real": getattr(np, real),
        "read": getattr(intrinsics, read),
        "write": getattr(intrinsics, write),
    }
    exec(source, names)
    function: Callable[..., Any] = names["kernel"]
    return function


def kernel_source(program: Program, states: Sequence[str], *, counts_steps: bool) -> str:
    """The loop around the rule: for each entry of the work list, each element, read, compute, write."""
    width = 2 + len(states) + counts_steps
    tensors = ["p", "g", *map(STATE.format, states)]
    written = dict(zip(["p", *tensors[2:]], program.results, strict=True))
    lines = [
        "def kernel(table, work, numbers, sets, first, last):",
        "    table, work, sets = integers(table), integers(work), integers(sets)",
        "    for w in range(first, last):",
        "        item, offset, n = work[3 * w], work[3 * w + 1], work[3 * w + 2]",
        "        if sets[item] < 0:",
        "            continue",
        f"        row, own = item * {width}, doubles(numbers + sets[item] * {8 * len(program.numbers)})",
        *(f"        {name} = real(own[{c}])" for c, name in enumerate(program.numbers)),
        *(f"        at_{name} = stored(table[row + {c}] + offset)" for c, name in enumerate(tensors)),
        "        for i in range(n):",
        *(f"            {name} = read(at_{name}[i])" for name in tensors),
        *(f"            {scalars.text(line)}" for line in program.lines),
        *(f"            at_{name}[i] = write({result})" for name, result in written.items()),
    ]
    if counts_steps:
        lines += [
            "        if offset == 0:",
            f"            step = steps(table[row + {width - 1}])",
            "            step[0] += 1",
        ]
    return "\n".join(lines) + "\n"
