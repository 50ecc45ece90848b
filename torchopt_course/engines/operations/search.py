"""What torch's engines give to numbers over several tensors: a program that makes a number of each tensor.

Nothing is written: the operations are those of the rule, on one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bucket import Part
from ..layout import is_sparse
from ..local import gathered
from ..rule.parsed import Specialization
from ..rule.program import STATE, Program
from ..rule.words import REDUCTIONS, TENSORS, Function
from .one_by_one import on_device_of


class Row(NamedTuple):
    """A parameter as a rule sees it."""

    param: Tensor
    grad: Tensor
    states: Mapping[str, Tensor]


def part_of(
    number: int,
    specialization: Specialization,
    coefficients: Mapping[str, Any],
    rows: Iterable[Row],
    words: Mapping[str, Function] = TENSORS,
) -> Part:
    """What parameters that have taken equally many steps give to the search of that number.

    Raises:
        RuntimeError: one of them cannot be reduced: it is complex or sparse.
    """
    if number >= len(specialization.searches):
        return Part(())
    program, wanted = specialization.searches[number]
    found, size = [], 0
    for row in rows:
        if row.param.is_complex():
            specialization.refuse_parts("a parameter is complex, and is seen as pairs of real numbers")
        if is_sparse(row.grad) or is_sparse(row.param):
            specialization.refuse_parts("a gradient or a parameter is sparse, and only its rows are visited")
        found.append(_numbers_of(program, coefficients, row, words))
        size += row.param.numel()
    values = [torch.stack(column) for column in zip(*found, strict=True)]
    return Part(wanted, values, size, number + 1 == len(specialization.searches))


def _numbers_of(
    program: Program, coefficients: Mapping[str, Any], row: Row, words: Mapping[str, Function]
) -> list[Tensor]:
    """The results of a program that makes numbers of one tensor, in double precision."""
    registers: dict[str, Any] = {"p": row.param, "g": row.grad}
    registers |= {STATE.format(name): state for name, state in row.states.items()}
    registers |= on_device_of(row.param, program.values(coefficients))
    for line in program.lines:
        operands: list[Any] = [registers[name] if isinstance(name, str) else name for name in line.operands]
        if line.word in REDUCTIONS and operands[0].itemsize < 4 and operands[0].is_floating_point():
            operands[0] = operands[0].float()  # a sum in 16 bits has no digits left
        registers[line.out] = words[line.word](*operands)
        for name in line.dying:
            del registers[name]
    return [gathered(registers[name]).double() for name in program.results]
