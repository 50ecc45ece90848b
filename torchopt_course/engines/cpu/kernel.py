"""From a program to machine code: the loop around the rule as source text, compiled by numba."""

from __future__ import annotations

import pkgutil
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..eight_bits import BLOCK, CODE
from ..native.compiler import Address, CompilationError, native
from ..rule.parsed import Specialization
from ..rule.program import STATE, Program
from ..rule.sweeps import Sweep, sweeps
from ..storage import HALVES, compensated, computed_in, reads_back
from . import scalars
from .reductions import LANES, block_text, larger, smaller, whole_text
from .storage import KINDS, POINTERS, Storage, block_lines, random_lines, read_lines


def kernel(
    specialization: Specialization,
    program: Program,
    stored: Sequence[torch.dtype],
    step_dtype: torch.dtype | None,
    rounding: str | None,
) -> Address:
    """Compile a specialization of a rule, or take it from the cache.

    Args:
        program: what is to be done: one of the specialization's.
        stored: the dtypes of p, g and the states, those included that keep rounding errors.
        step_dtype: of the step count, if there is one.
        rounding: how results are rounded, see :mod:`..storage`.

    Raises:
        CompilationError: it cannot be compiled.
    """
    if torch.float16 in stored and not _has_float16():
        raise CompilationError("this processor has no instructions for float16")
    step_real = KINDS[step_dtype][0] if step_dtype else None
    text = kernel_source(program, specialization.states, stored, rounding, counts_steps=step_real is not None)
    name = "".join(c if c.isalnum() else "_" for c in specialization.formula.rule.__qualname__)
    real = str(computed_in(stored)).removeprefix("torch.")
    # The text is all that there is to know of the rule.
    inputs = "\n".join((real, str(step_real), text, _OWN_CODE))
    lanes = max(LANES, LANES * len(program.reductions))
    return native(name, inputs, lambda: _build(text, real, step_real, lanes), 9)


_ENGINES = str(__package__).rpartition(".")[0]
_OWN_CODE = repr(
    [
        pkgutil.get_data(package, file)
        for package, file in (
            (__package__, "kernel.py"),
            (__package__, "reductions.py"),
            (__package__, "scalars.py"),
            (__package__, "storage.py"),
            (_ENGINES, "storage.py"),
            (_ENGINES, "eight_bits.py"),
            (f"{_ENGINES}.native", "eight_bits.py"),
            (f"{_ENGINES}.native", "powers.py"),
        )
    ]
)


def _has_float16() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("f16c")) or platform.machine() in ("aarch64", "arm64")


def _build(source: str, real: str, step_real: str | None, lanes: int) -> Callable[..., Any]:
    import numba

    from ..native import eight_bits, intrinsics, powers

    pointer_to = intrinsics.pointer_to
    names = {
        **scalars.NAMES,
        **intrinsics.WORDS,
        **eight_bits.WORDS,
        "__name__": __name__,
        "narrow_vectors": intrinsics.narrow_vectors,
        "integers": pointer_to(numba.int64),
        "doubles": pointer_to(numba.float64),
        **{f"at_{kind}": pointer_to(getattr(numba, kind)) for kind in POINTERS.values()},
        "steps": pointer_to(getattr(numba, step_real or "float32")),
        "real": getattr(np, real),
        "single": np.float32,
        "whole": np.int64,
        "double": np.float64,
        "larger": numba.njit(inline="always")(larger),
        "smaller": numba.njit(inline="always")(smaller),
        "power": powers.power if real == "float32" else powers.double_power,
        "stack": intrinsics.on_the_stack(numba.float64, lanes),
        "block_on_the_stack": intrinsics.on_the_stack(numba.float32, BLOCK),
    }
    exec(source, names)
    function: Callable[..., Any] = names["kernel"]
    return function


def kernel_source(
    program: Program,
    states: Sequence[str],
    stored: Sequence[torch.dtype],
    rounding: str | None,
    *,
    counts_steps: bool,
) -> str:
    """The loop around the rule: for each entry of the work list, each element, read, compute, write."""
    tensors = ["p", "g", *map(STATE.format, states)]
    dtypes = dict(zip(tensors, stored, strict=False))
    targets = ["p", *tensors[2:]]
    kept = compensated(rounding, {name: dtypes[name] for name in targets})
    coded = [name for name in targets if dtypes[name] == CODE]
    columns = {**dtypes, **{f"lost_{name}": dtypes[name] for name in kept}}
    columns |= {f"scale_{name}": torch.float32 for name in coded}
    assert len(columns) == len(stored), (columns, stored)
    width, said = len(columns) + counts_steps, Storage(computed_in(stored))
    by_chance = [name for name in targets if rounding == "stochastic" and dtypes[name] in (*HALVES, CODE)]
    n_numbers = len(program.numbers)
    own = n_numbers + 2 * (rounding == "stochastic" and not program.is_search)
    visits = sweeps(program)
    kept_of_p = said.kept(program.results[0], dtypes["p"]) if reads_back(program, stored, rounding) else None
    searches = [sweep for sweep in visits if sweep.reductions]
    lines = [
        "def kernel(table, work, numbers, sets, sweep, partials, blocks, first, last):",
        *(["    narrow_vectors()"] if _waits_for_the_memory(program, stored) else []),
        "    table, work, sets = integers(table), integers(work), integers(sets)",
        *(["    partials, blocks, lanes = doubles(partials), integers(blocks), stack()"] if searches else []),
        "    for w in range(first, last):",
        "        item, offset, n = work[3 * w], work[3 * w + 1], work[3 * w + 2]",
        "        if sets[item] < 0:",
        "            continue",
        f"        row, own = item * {width}, doubles(numbers + sets[item] * {8 * own})",
        *(
            f"        {name} = {'own[{}] != 0' if name in program.truths else 'real(own[{}])'}".format(c)
            for c, name in enumerate(program.numbers)
        ),
        *(
            f"        at_{name} = at_{POINTERS[dtype]}(table[row + {c}]{_offset(name, dtype)})"
            for c, (name, dtype) in enumerate(columns.items())
        ),
        *(f"        fresh_{name} = block_on_the_stack()" for name in coded),
        *(["        size = blocks[2 * item + 1]"] if searches else []),
    ]
    for number, search in enumerate(searches):
        reading = read_lines(said, dtypes, kept, [name for name in tensors if name in search.tensors])
        computing = _computing(program, search, kept_of_p)
        places = list(map(program.reductions.index, search.reductions))
        found = block_text(reading, computing, search.reductions, places, len(program.reductions))
        lines += [
            f"        if sweep == {number}:",
            *(f"            {line}" for line in (*_per_tensor(program, search), *found, "continue")),
        ]
    if program.is_search:
        return "\n".join(lines) + "\n"
    written, last = dict(zip(targets, program.results, strict=True)), visits[-1]
    lines += [
        *(f"        {line}" for line in _per_tensor(program, last)),
    ]
    if by_chance:
        lines += [
            f"        key, second_key = whole(own[{n_numbers}]), whole(own[{n_numbers + 1}])",
        ]
    words = random_lines(len(by_chance))
    each = [
        *read_lines(said, dtypes, kept, tensors, in_block=True),
        *_computing(program, last, kept_of_p),
        *words,
    ]
    for name, result in written.items():
        if name in coded:
            each += said.keep(name, result)
        elif name in kept:
            each += said.write_both(name, dtypes[name], result)
        elif name in by_chance:
            each.append(said.write_by_chance(name, dtypes[name], result, by_chance.index(name)))
        else:
            each.append(f"at_{name}[i] = {said.narrow(result, dtypes[name])}")
    if coded:
        codes = [*words, *(said.write_code(name, by_chance) for name in coded)]
        loop = block_lines(coded, each, codes)
    else:
        loop = ["for i in range(n):", *(f"    {line}" for line in each)]
    lines += [f"        {line}" for line in loop]
    if counts_steps:
        lines += [
            "        if offset == 0:",
            f"            step = steps(table[row + {width - 1}])",
            "            step[0] += 1",
        ]
    return "\n".join(lines) + "\n"


def _computing(program: Program, sweep: Sweep, kept_of_p: str | None) -> list[str]:
    """What a sweep does to an element; what it reads of the new parameter is what is kept of that."""
    lines: list[str] = []
    for line in sweep.lines:
        lines.append(scalars.text(line))
        if kept_of_p and line.out == program.results[0]:
            lines.append(f"{line.out} = {kept_of_p}")
    return lines


def _waits_for_the_memory(program: Program, stored: Sequence[torch.dtype]) -> bool:
    """Whether there is so little to compute that vectors of 256 bits are faster than of 512.

    By 6 to 8 % for SGD with and without momentum in a training loop, on an AMD EPYC of the kind Zen 4. With a
    division or a root it is the other way round.
    """
    return {line.word for line in program.lines} <= _QUICK and {*stored} <= {torch.float32, torch.float64}


_QUICK = frozenset({"add", "sub", "mul", "neg", "abs"})


def _per_tensor(program: Program, sweep: Sweep) -> list[str]:
    """What a sweep knows of the whole tensor before it begins."""
    places = list(map(program.reductions.index, sweep.known))
    known = whole_text(sweep.known, places, len(program.reductions))
    return [*known, *map(scalars.text, sweep.per_tensor)]


def _offset(name: str, dtype: torch.dtype) -> str:
    return "" if name.startswith("scale_") else f" + offset * {dtype.itemsize}"
