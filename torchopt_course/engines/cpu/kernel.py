"""From a program to machine code: the loop around the rule as source text, compiled by numba."""

from __future__ import annotations

import pkgutil
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..native.compiler import Address, CompilationError, native
from ..rule.parsed import Specialization
from ..rule.program import STATE, Program
from ..rule.sweeps import Sweep, sweeps
from ..storage import HALVES, compensated, computed_in
from . import scalars
from .reductions import LANES, block_text, larger, smaller, whole_text

# What is stored, what it is computed in, and the words between the two.
KINDS = {
    torch.float32: ("float32", "float32", "unchanged", "unchanged"),
    torch.float64: ("float64", "float64", "unchanged", "unchanged"),
    torch.bfloat16: ("uint16", "float32", "widen_bfloat16", "narrow_bfloat16"),
    torch.float16: ("uint16", "float32", "widen_float16", "narrow_float16"),
}


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


_OWN_CODE = repr(
    [
        pkgutil.get_data(package, file)
        for package, file in (
            (__package__, "kernel.py"),
            (__package__, "reductions.py"),
            (__package__, "scalars.py"),
            (__package__.rpartition(".")[0], "storage.py"),
        )
    ]
)


def _has_float16() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("f16c")) or platform.machine() in ("aarch64", "arm64")


def _build(source: str, real: str, step_real: str | None, lanes: int) -> Callable[..., Any]:
    import numba

    from ..native import intrinsics

    pointer_to = intrinsics.pointer_to
    names = {
        **scalars.NAMES,
        **intrinsics.WORDS,
        "__name__": __name__,
        "integers": pointer_to(numba.int64),
        "doubles": pointer_to(numba.float64),
        **{f"at_{stored}": pointer_to(getattr(numba, stored)) for stored, *_ in KINDS.values()},
        "steps": pointer_to(getattr(numba, step_real or "float32")),
        "real": getattr(np, real),
        "single": np.float32,
        "whole": np.int64,
        "double": np.float64,
        "larger": numba.njit(inline="always")(larger),
        "smaller": numba.njit(inline="always")(smaller),
        "stack": intrinsics.doubles_on_the_stack(lanes),
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
    columns = {**dtypes, **{f"lost_{name}": dtypes[name] for name in kept}}
    assert len(columns) == len(stored), (columns, stored)
    width, said = len(columns) + counts_steps, _Storage(computed_in(stored))
    by_chance = [name for name in targets if rounding == "stochastic" and dtypes[name] in HALVES]
    n_numbers = len(program.numbers)
    own = n_numbers + 2 * (rounding == "stochastic" and not program.is_search)
    visits = sweeps(program)
    searches = [sweep for sweep in visits if sweep.reductions]
    lines = [
        "def kernel(table, work, numbers, sets, sweep, partials, blocks, first, last):",
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
            f"        at_{name} = at_{KINDS[dtype][0]}(table[row + {c}] + offset * {dtype.itemsize})"
            for c, (name, dtype) in enumerate(columns.items())
        ),
        *(["        size = blocks[2 * item + 1]"] if searches else []),
    ]
    for number, search in enumerate(searches):
        reading = _reading(said, dtypes, kept, [name for name in tensors if name in search.tensors])
        computing = list(map(scalars.text, search.lines))
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
    lines += [
        "        for i in range(n):",
        *(f"            {line}" for line in _reading(said, dtypes, kept, tensors)),
        *(f"            {scalars.text(line)}" for line in last.lines),
    ]
    for name, result in written.items():
        if name in kept:
            said_lines = said.write_both(name, dtypes[name], result)
        elif name in by_chance:
            said_lines = said.write_by_chance(name, dtypes[name], result, by_chance.index(name))
        else:
            said_lines = [f"at_{name}[i] = {said.narrow(result, dtypes[name])}"]
        lines += [f"            {line}" for line in said_lines]
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


def _reading(
    said: _Storage, dtypes: Mapping[str, torch.dtype], kept: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Read the element ``i`` of some tensors, with what rounding has kept of it."""
    columns = {name: dtypes[name] for name in names}
    columns |= {f"lost_{name}": dtypes[name] for name in names if name in kept}
    return [
        *(f"{name} = {said.read(f'at_{name}[i]', dtype)}" for name, dtype in columns.items()),
        *(f"{name} = {name} + lost_{name}" for name in names if name in kept),
    ]


class _Storage:
    """How numbers are read and written, as text; computed is in one precision for all."""

    def __init__(self, real: torch.dtype) -> None:
        self._real = str(real).removeprefix("torch.")

    def read(self, number: str, dtype: torch.dtype) -> str:
        _, wide, read, _ = KINDS[dtype]
        number = number if read == "unchanged" else f"{read}({number})"
        return number if wide == self._real else f"real({number})"

    def narrow(self, number: str, dtype: torch.dtype) -> str:
        _, wide, _, write = KINDS[dtype]
        number = number if wide == self._real else f"{'single' if wide == 'float32' else 'real'}({number})"
        return number if write == "unchanged" else f"{write}({number})"

    def write_both(self, name: str, dtype: torch.dtype, number: str) -> list[str]:
        """To nearest, with what is lost beside it. (Of infinity and NaN nothing is.)"""
        return [
            f"new_{name} = {self.narrow(number, dtype)}",
            f"lost_{name} = {number} - {self.read(f'new_{name}', dtype)}",
            f"at_{name}[i] = new_{name}",
            f"lost_{name} = lost_{name} if abs(lost_{name}) < real(inf) else real(0)",
            f"at_lost_{name}[i] = {self.narrow(f'lost_{name}', dtype)}",
        ]

    def write_by_chance(self, name: str, dtype: torch.dtype, number: str, place: int) -> list[str]:
        """By the lower or the upper half of a random word: one is enough for two tensors."""
        word = f"word_{place // 2}"
        first = (
            "random_word(offset + i, key, second_key)" if place == 0 else f"next_word(word_{place // 2 - 1})"
        )
        half = "upper" if place % 2 else "lower"
        kind = str(dtype).removeprefix("torch.")
        return [
            *([] if place % 2 else [f"{word} = {first}"]),
            f"at_{name}[i] = stochastic_{kind}(single({number}), {half}_half({word}))",
        ]
