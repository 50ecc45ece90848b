"""A program with reductions, cut into sweeps over the elements of a tensor.

A sum is known when all elements have been visited, and only then can be computed what depends on it. So the
first sweep visits all elements for the reductions that depend on none, the next for those that depend on
the first, and the last one writes the results. What a sweep needs of an earlier one, but for its
reductions, it computes again: that costs less than to keep it in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .program import Line, Program


class Sweep(NamedTuple):
    """One visit to all elements of a tensor.

    Attributes:
        known: the reductions of earlier sweeps that it reads.
        per_tensor: what is computed of those, once.
        lines: what is computed for each element.
        reductions: what it finds out; nothing for the last sweep, which writes the results.
        tensors: which of ``"p"``, ``"g"`` and the states it reads, among other registers.
    """

    known: list[Line]
    per_tensor: list[Line]
    lines: list[Line]
    reductions: list[Line]
    tensors: frozenset[str]


def sweeps(program: Program) -> list[Sweep]:
    """The sweeps of a program, in order; a single one if it has no reductions.

    A search ends with its last reductions.
    """
    depth: dict[str | float, int] = {}
    for line in program.lines:
        before = max((depth.get(operand, 0) for operand in line.operands), default=0)
        depth[line.out] = before + (line in program.reductions)
    last = max((depth[line.out] for line in program.reductions), default=0)
    found = [[line for line in program.reductions if depth[line.out] == k + 1] for k in range(last)]
    return [
        *(
            _sweep(program, [str(line.operands[0]) for line in reductions], reductions)
            for reductions in found
        ),
        *([] if program.is_search else [_sweep(program, program.results, [])]),
    ]


def _sweep(program: Program, wanted: Iterable[str], reductions: list[Line]) -> Sweep:
    needed: set[str | float] = {*wanted}
    known: list[Line] = []
    computed: list[Line] = []
    for line in reversed(program.lines):
        if line.out not in needed:
            continue
        if line in program.reductions:
            known.insert(0, line)
        else:
            computed.insert(0, line)
            needed |= {*line.operands}
    return Sweep(
        known,
        [line for line in computed if line.per_tensor],
        [line for line in computed if not line.per_tensor],
        reductions,
        frozenset(name for name in needed if isinstance(name, str)),
    )
