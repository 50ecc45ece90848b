"""The fused CPU engine: one pass over all tensors of a group, compiled from the rule by numba.

The kernel reads parameter, gradient and states once, applies the rule, writes back once. It takes
addresses, so one call updates all tensors of a batch, and it lets go of the interpreter lock, so a large
batch is shared between threads. Every element is computed by the same scalar formula without contraction
or reassociation: results do not depend on the number of threads. float16 and bfloat16 are read, computed as
float32, and rounded once, when they are written.
"""

from __future__ import annotations

import pkgutil
import platform
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from .batch import Batch, Coefficients, Job, Scaling, Specialise, Words
from .compiler import CompilationError, NativeFunction, NoWord, native
from .namespaces import scalars
from .program import STATE, Program
from .rules import Variant
from .threads import share

# What is stored, what it is computed in, and the words between the two.
_KINDS = {
    torch.float32: ("float32", "float32", "unchanged", "unchanged"),
    torch.float64: ("float64", "float64", "unchanged", "unchanged"),
    torch.bfloat16: ("uint16", "float32", "widen_bfloat16", "narrow_bfloat16"),
    torch.float16: ("uint16", "float32", "widen_float16", "narrow_float16"),
}
# Below this many elements waking a second thread costs more than it brings.
SHARED_FROM = 300_000
# Into how many parts a work list is cut for sharing: a thread that wakes up late takes fewer of them.
PIECES = 32


class WorkList:
    """What a kernel goes through, row by row: which tensor, from which byte on, how many elements."""

    def __init__(self, rows: Words) -> None:
        self.rows = rows
        self.address = rows.ctypes.data
        self.length = len(rows)
        size = -(-self.length // PIECES) or 1
        self.pieces = [(i, min(i + size, self.length)) for i in range(0, self.length, size)]


# A kernel, its work list, and its coefficients.
Pass = tuple[NativeFunction, WorkList, "array[float]"]


class CpuBatch(Batch):
    """The tensors of one dtype in one parameter group, for the fused CPU engine."""

    ENGINE = "fused CPU engine"
    DTYPES = frozenset(_KINDS)
    # Large enough to forget the cost of an entry, small enough to share fairly.
    CHUNK = 1 << 16
    HEEDS_SCALING = False

    def _set_up(self) -> None:
        self._table_at = self.survey.table.ctypes.data
        self._kernels: dict[Variant, NativeFunction] = {}
        self._is_large = int(self._sizes.sum()) >= SHARED_FROM
        self._judged = b"", False  # the addresses last looked at for overlap, and what was found

    def _work_list(self, rows: Words) -> WorkList:
        return WorkList(rows)

    def prepare(self, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None) -> Job:
        # The host knows of an overflow and has undone the scale: nothing of `scaling` is left to do.
        return partial(
            self._run,
            [self._pass(work, coefficients(age), specialise) for age, work in self._parts()],
        )

    def _pass(self, work: WorkList, values: Mapping[str, Any], specialise: Specialise) -> Pass:
        variant = specialise(values)
        function = self._kernels.get(variant)
        if function is None:
            function = self._kernels[variant] = kernel(variant, self._dtype, self._step_dtype)
        assert variant.program is not None, "there is no kernel without"
        return function, work, array("d", [*variant.program.values(values).values()] or [0.0])

    def _run(self, passes: list[Pass]) -> None:
        """Update all parameters and states in place, as prepared."""
        shared = self._is_large and torch.get_num_threads() > 1 and not self._overlap()
        for function, work, numbers in passes:
            addresses = self._table_at, work.address, numbers.buffer_info()[0]
            if shared:
                share(partial(function, *addresses), work.pieces)
            else:
                function(*addresses, 0, work.length)
        self._settle()

    def _overlap(self) -> bool:
        """Whether two tensors share memory: then the order of updates counts, and one thread does it."""
        addresses = self.survey.table.tobytes() + self.survey.absent.tobytes()
        if addresses != self._judged[0]:
            self._judged = addresses, self._judge_overlap()
        return self._judged[1]

    def _judge_overlap(self) -> bool:
        width = self.survey.table.shape[1] - self._counts_steps
        stepped = self.survey.absent == 0
        starts = self.survey.table[stepped, :width].ravel()
        stops = starts + np.repeat(self._sizes[stepped] * self._dtype.itemsize, width)
        order = np.argsort(starts)
        return bool((stops[order][:-1] > starts[order][1:]).any())


def kernel(variant: Variant, dtype: torch.dtype, step_dtype: torch.dtype | None) -> NativeFunction:
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
    return native(name, inputs, lambda: _build(text, dtype, step_real), 5, holds_gil=False)


_OWN_CODE = repr([pkgutil.get_data(__package__, file) for file in ("cpu.py", "namespaces/scalars.py")])


def _has_float16() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("f16c")) or platform.machine() in ("aarch64", "arm64")


def _build(source: str, dtype: torch.dtype, step_real: str | None) -> Callable[..., Any]:
    import numba

    from . import intrinsics

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
        "def kernel(table, work, coefficients, first, last):",
        "    table, work, coefficients = integers(table), integers(work), doubles(coefficients)",
        *(f"    {name} = real(coefficients[{c}])" for c, name in enumerate(program.numbers)),
        "    for w in range(first, last):",
        f"        row, offset, n = work[3 * w] * {width}, work[3 * w + 1], work[3 * w + 2]",
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
