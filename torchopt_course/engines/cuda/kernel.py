"""From a program to a Triton kernel: the loop around it as source text, and what Triton makes of that."""

from __future__ import annotations

import importlib.util
import linecache
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch

from ..fused import kernel_program
from ..native.compiler import CompilationError
from ..rule.parsed import Specialization
from ..rule.program import STATE, Program
from ..rule.sweeps import Sweep, sweeps
from ..storage import HALVES, compensated, computed_in, reads_back
from . import reductions
from .blocks import SourceText
from .compiled import BLOCK, Kernel
from .of_step import OfStep, count_source

# What can be stored, in the names of ``triton.language``.
DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
# Elements that one program of the launch updates.
CHUNK = 8 * BLOCK


@cache
def kernels(
    specialization: Specialization,
    on_device: tuple[str, ...],
    stored: tuple[torch.dtype, ...],
    rounding: str | None,
    step_dtype: torch.dtype | None,
    *,
    counts_steps: bool,
    scaled: int,
    aligned: bool,
    number: int | None = None,
    of_step: OfStep | None = None,
) -> list[Kernel]:
    """The kernels for a specialization of a rule, one for each of its sweeps, with what adds up in between.

    Their arguments are the pointers and then the numbers; the second of two is given the three pointers of
    reductions alone.

    Args:
        on_device: the program's numbers that are read from the device, one row for each parameter.
        stored: the dtypes of p, g and the states, those included that keep rounding errors.
        rounding: how results are rounded, see :mod:`..storage`. By chance: the kernel gets ``keys``.
        step_dtype: of the step count on the device, if there is one: the kernel increments it, or computes
            coefficients of it.
        counts_steps: whether the table of addresses has a column for step counts.
        scaled: 1: the kernel gets ``found_inf``; 2: ``found_inf`` and ``grad_scale``.
        aligned: whether all addresses are multiples of 16 bytes.
        number: of the search that is to be made; ``None``: the update.
        of_step: coefficients that the kernel computes; then somebody else has counted the step.

    Raises:
        CompilationError: Triton is not installed, or has no word for what the rule does.
    """
    try:
        import triton
        import triton.language as tl
    except ImportError as error:
        raise CompilationError(f"Triton cannot be imported: {error}") from error
    xp = _words(bool(triton.knobs.runtime.interpret))
    program, made = kernel_program(specialization, number), []
    for sweep in sweeps(program):
        text = kernel_source(
            program,
            sweep,
            specialization.states,
            on_device,
            stored,
            rounding,
            None if sweep.reductions and of_step is None else step_dtype,
            counts_steps=counts_steps,
            scaled=scaled,
            aligned=aligned,
            of_step=of_step,
        )
        texts = {"kernel": text}
        if sweep.reductions:
            places = list(map(program.reductions.index, sweep.reductions))
            texts["total"] = reductions.total_source(sweep.reductions, places, len(program.reductions), CHUNK)
        for name, text in texts.items():
            made.append(Kernel(triton.jit(_from_text(text, name, {"tl": tl, "xp": xp}))))
    return made


@cache
def counting_kernel(width: int, step_dtype: torch.dtype, *, scaled: bool) -> Kernel:
    """Counts the steps of tensors: of the table of addresses, so many words wide, the last."""
    import triton
    import triton.language as tl

    text = count_source(width, str(step_dtype).removeprefix("torch."), scaled=scaled)
    return Kernel(triton.jit(_from_text(text, "count", {"tl": tl})))


@cache
def _words(interpreted: bool) -> ModuleType:
    """What the words of a rule mean in a block: what Triton makes of that file, as it is set at present."""
    spec = importlib.util.find_spec(f"{__package__}.triton")
    assert spec is not None, "it stands beside this file"
    assert spec.loader is not None, "it is a file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_source(
    program: Program,
    sweep: Sweep,
    states: Sequence[str],
    on_device: tuple[str, ...],
    stored: tuple[torch.dtype, ...],
    rounding: str | None,
    step_dtype: torch.dtype | None,
    *,
    counts_steps: bool,
    scaled: int,
    aligned: bool,
    of_step: OfStep | None,
) -> str:
    """One program of the launch: its entry of the work list, block by block, read, compute, write."""
    real = str(computed_in(stored)).removeprefix("torch.")
    tensors = ["p", "g", *map(STATE.format, states)]
    dtypes = dict(zip(tensors, stored, strict=False))
    kept = compensated(rounding, {name: dtypes[name] for name in tensors if name != "g"})
    columns = {**dtypes, **{f"lost_{name}": dtypes[name] for name in kept}}
    width = len(columns) + counts_steps
    elsewhere = {*on_device, *(of_step.names if of_step else ())}
    on_host = [name for name in program.numbers if name not in elsewhere]
    given = [f"r{i}" for i in of_step.given] if of_step else []
    step, kind = f"tl.load(table + row * {width} + {width - 1})", str(step_dtype).removeprefix("torch.")
    by_chance = rounding == "stochastic" and not program.is_search
    scaling = ["found_inf", "grad_scale"][:scaled]
    signature = [
        *("table", "work", *(["keys"] if by_chance else [])),
        *(*(["numbers"] if on_device else []), *scaling),
        *(["partials", "totals", "chunks"] if program.reductions else []),
        *(f'{name}: "fp64"' for name in (*on_host, *given)),
        "BLOCK: tl.constexpr",
    ]
    pointer = f"tl.load(table + row * {width} + {{}}).to(tl.pointer_type(tl.{{}})) + offset"
    if aligned:
        pointer = f"tl.multiple_of({pointer}, 16)"
    said = SourceText(sweep.per_tensor, sweep.lines, real)
    if reads_back(program, stored, rounding):
        said.round(program.results[0], DTYPES[stored[0]])
    block = _block(program, sweep, columns, kept, said, real, rounding, "grad_scale" in scaling)
    reduced, place = len(program.reductions), program.reductions.index
    lines = [
        f"def kernel({', '.join(signature)}):",
        "    entry = work + 3 * tl.program_id(0)",
        "    row, offset, n = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)",
        *(
            f"    {name} = tl.load(keys + 2 * row + {c}).to(tl.uint32)"
            for c, name in enumerate(("key", "second_key") if by_chance else ())
        ),
        # `full` takes what both the compiler and the interpreter make of a Python number.
        *(f"    {name} = tl.full((), {name}, tl.{real})" for name in on_host),
        *(
            f"    {name} = tl.load(numbers + row * {len(on_device)} + {c}).to(tl.{real})"
            for c, name in enumerate(on_device)
        ),
        *(f"    {line}" for line in (of_step.prologue(step, kind, real) if of_step else ())),
        # (As integers: the interpreter loses track of a comparison of floating point numbers.)
        *(f"    {name} = {name}.to(tl.int32) != 0" for name in sorted(program.truths)),
        *(f"    {line}" for line in said.constants),
        *(f"    {reductions.known(line, place(line), reduced, real)}" for line in sweep.known),
        *(f"    {line}" for line in said.per_tensor),
        *(f"    {line}" for line in reductions.begin(sweep.reductions)),
        "    alive = 1",
    ]
    if scaling:
        lines += ["    alive = tl.where(tl.load(found_inf) == 0, 1, 0)", "    n = n * alive"]
    lines += [
        *(
            f"    at_{name} = {pointer.format(c, DTYPES[dtype])}"
            for c, (name, dtype) in enumerate(columns.items())
        ),
        "    whole = n // BLOCK * BLOCK",
        "    for start in range(0, whole, BLOCK):",
        "        i = start + tl.arange(0, BLOCK)",
        *(f"        {line.format(mask='', load_mask='', inside='i >= 0')}" for line in block),
        # Only the rest is masked: a mask would keep the compiler from loading 16 bytes at a time.
        "    if whole < n:",
        "        i = whole + tl.arange(0, BLOCK)",
        *(f"        {line.format(**_MASKED)}" for line in block),
    ]
    if sweep.reductions:
        part = f"tl.load(chunks + 2 * row) + offset // {CHUNK}"
        places = list(map(place, sweep.reductions))
        lines += [f"    {line}" for line in reductions.give(sweep.reductions, places, reduced, part)]
    if step_dtype is not None and of_step is None:
        lines += [
            "    if offset == 0:",
            f"        at_step = {step}.to(tl.pointer_type(tl.{kind}))",
            "        tl.store(at_step, tl.load(at_step) + alive)",
        ]
    return "\n".join(lines) + "\n"


_MASKED = {"mask": ", mask=i < n", "load_mask": ", mask=i < n, other=0", "inside": "i < n"}


def _block(
    program: Program,
    sweep: Sweep,
    columns: Mapping[str, torch.dtype],
    kept: Sequence[str],
    said: SourceText,
    real: str,
    rounding: str | None,
    unscale: bool,
) -> list[str]:
    """Read, compute, write one block, whose elements are at ``i``; with places for masks."""
    # The last sweep writes back all that there is.
    read = [name for name in columns if name.removeprefix("lost_") in sweep.tensors or not sweep.reductions]
    lines = [f"{name} = tl.load(at_{name} + i{{load_mask}}).to(tl.{real})" for name in read]
    lines += [f"{name} = {name} + lost_{name}" for name in kept if name in read]
    if unscale and "g" in read:
        lines.append("g = g * (1.0 / tl.load(grad_scale))")
    if sweep.reductions:
        return [*lines, *said.lines, *reductions.add(sweep.reductions)]
    if unscale:
        lines.append("tl.store(at_g + i, g{mask})")
    lines += said.lines
    targets = [name for name in columns if name != "g" and not name.startswith("lost_")]
    drawn = 0
    for name, result in zip(targets, program.results, strict=True):
        kind = DTYPES[columns[name]]
        if name in kept:
            lines += [
                f"new_{name} = {result}.to(tl.float32).to(tl.{kind})",
                f"lost_{name} = xp.finite({result} - new_{name}.to(tl.{real})).to(tl.float32).to(tl.{kind})",
                f"tl.store(at_lost_{name} + i, lost_{name}{{mask}})",
                f"tl.store(at_{name} + i, new_{name}{{mask}})",
            ]
        elif rounding == "stochastic" and columns[name] in HALVES:
            if drawn % 2 == 0:
                first = "xp.random_word(offset + i, key, second_key)"
                lines.append(f"word = {first if drawn == 0 else 'xp.next_word(word)'}")
            bits = "word >> 16" if drawn % 2 else "word & 0xFFFF"
            number = f"xp.stochastic_{kind}({result}.to(tl.float32), {bits})"
            lines.append(f"tl.store(at_{name} + i, {number}{{mask}})")
            drawn += 1
        else:
            lines.append(f"tl.store(at_{name} + i, {result}{{mask}})")
    return lines


def _from_text(text: str, name: str, names: dict[str, Any]) -> Callable[..., Any]:
    """Define a function whose source can be looked up, which is how Triton gets it."""
    file = f"<torchopt_course {name} {hash(text):x}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    names = {"__name__": __name__, **names}
    exec(compile(text, file, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names[name]
    return function
