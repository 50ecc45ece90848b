"""From a program to machine code: the loop around the rule as source text, compiled by numba."""

from __future__ import annotations

import pkgutil
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..native.compiler import Address, CompilationError, NoWord, native
from ..rule.parsed import Specialization
from ..rule.program import STATE, Program
from ..rule.sweeps import Sweep, sweeps
from . import scalars
from .reductions import BLOCK, LANES, block_text, larger, smaller, whole_text

# What is stored, what it is computed in, and the words between the two.
KINDS = {
    torch.float32: ("float32", "float32", "unchanged", "unchanged"),
    torch.float64: ("float64", "float64", "unchanged", "unchanged"),
    torch.bfloat16: ("uint16", "float32", "widen_bfloat16", "narrow_bfloat16"),
    torch.float16: ("uint16", "float32", "widen_float16", "narrow_float16"),
}


def kernel(specialization: Specialization, dtype: torch.dtype, step_dtype: torch.dtype | None) -> Address:
    """Compile a specialization of a rule, or take it from the cache.

    Raises:
        CompilationError: it cannot be compiled.
    """
    if specialization.program is None:
        raise NoWord(specialization.reason)
    if dtype == torch.float16 and not _has_float16():
        raise CompilationError("this processor has no instructions for float16")
    step_real = KINDS[step_dtype][0] if step_dtype else None
    text = kernel_source(specialization.program, specialization.states, counts_steps=step_real is not None)
    name = "".join(c if c.isalnum() else "_" for c in specialization.formula.rule.__qualname__)
    # The text is all that there is to know of the rule.
    inputs = "\n".join((str(dtype), str(step_real), text, _OWN_CODE))
    lanes = max(LANES, LANES * len(specialization.program.reductions))
    return native(name, inputs, lambda: _build(text, dtype, step_real, lanes), 9)


_OWN_CODE = repr(
    [pkgutil.get_data(__package__, file) for file in ("kernel.py", "reductions.py", "scalars.py")]
)


def _has_float16() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("f16c")) or platform.machine() in ("aarch64", "arm64")


def _build(source: str, dtype: torch.dtype, step_real: str | None, lanes: int) -> Callable[..., Any]:
    import numba

    from ..native import intrinsics

    stored, real, read, write = KINDS[dtype]
    pointer_to = intrinsics.pointer_to
    names = {
        **scalars.NAMES,
        "__name__": __name__,
        "integers": pointer_to(numba.int64),
        "doubles": pointer_to(numba.float64),
        "stored": pointer_to(getattr(numba, stored)),
        "steps": pointer_to(getattr(numba, step_real or "float32")),
        "real": getattr(np, real),
        "double": np.float64,
        "larger": numba.njit(inline="always")(larger),
        "smaller": numba.njit(inline="always")(smaller),
        "stack": intrinsics.doubles_on_the_stack(lanes),
        "BLOCK_BYTES": BLOCK * np.dtype(stored).itemsize,
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
    *searches, last = sweeps(program)
    lines = [
        "def kernel(table, work, numbers, sets, sweep, partials, blocks, first, last):",
        "    table, work, sets = integers(table), integers(work), integers(sets)",
        *(["    partials, blocks, lanes = doubles(partials), integers(blocks), stack()"] if searches else []),
        "    for w in range(first, last):",
        "        item, offset, n = work[3 * w], work[3 * w + 1], work[3 * w + 2]",
        "        if sets[item] < 0:",
        "            continue",
        f"        row, own = item * {width}, doubles(numbers + sets[item] * {8 * len(program.numbers)})",
        *(f"        {name} = real(own[{c}])" for c, name in enumerate(program.numbers)),
        *(f"        at_{name} = stored(table[row + {c}] + offset)" for c, name in enumerate(tensors)),
        *(["        size = blocks[2 * item + 1]"] if searches else []),
    ]
    for number, search in enumerate(searches):
        reading = [f"{name} = read(at_{name}[i])" for name in tensors if name in search.tensors]
        computing = list(map(scalars.text, search.lines))
        places = list(map(program.reductions.index, search.reductions))
        found = block_text(reading, computing, search.reductions, places, len(program.reductions))
        lines += [
            f"        if sweep == {number}:",
            *(f"            {line}" for line in (*_per_tensor(program, search), *found, "continue")),
        ]
    lines += [
        *(f"        {line}" for line in _per_tensor(program, last)),
        "        for i in range(n):",
        *(f"            {name} = read(at_{name}[i])" for name in tensors),
        *(f"            {scalars.text(line)}" for line in last.lines),
        *(f"            at_{name}[i] = write({result})" for name, result in written.items()),
    ]
    if counts_steps:
        lines += [
            "        if offset == 0:",
            f"            step = steps(table[row + {width - 1}])",
            "            step[0] += 1",
        ]
    return "\n".join(lines) + "\n"


def _per_tensor(program: Program, sweep: Sweep) -> list[str]:
    """What a sweep knows of the whole tensor before it begins."""
    places = list(map(program.reductions.index, sweep.known))
    known = whole_text(sweep.known, places, len(program.reductions))
    return [*known, *map(scalars.text, sweep.per_tensor)]
