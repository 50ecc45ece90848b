"""The foreach engine: the rule over lists of tensors, each operation one ``torch._foreach_*`` call.

For devices without a fused engine, and for ``foreach=True``. A rule's program is a straight line of
operations. Knowing the whole line, the engine knows when a value is used for the last time: it writes results
over what nobody needs any more, parameters and states included, and it joins ``x + s*a*b`` and ``x + s*a/b``
into one operation. Long lists are taken in portions, so that intermediate results never
hold more than a fraction of the parameters' memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .eager import as_real
from .namespaces import lists
from .program import STATE, Line, Program
from .rules import Variant

# Of all elements, what part is computed at a time (but no less than the second). Intermediate results of a
# rule are two or three lists at most: in portions, they stay below the memory of one list of all.
PORTION, LEAST_PORTION = 1 / 4, 1 << 16


class Joined:
    """A program with products and quotients that are added in one operation.

    Args:
        program: what a rule does.

    Attributes:
        lines: the operations, in order.
        results: the registers of the new ``p`` and states.
    """

    def __init__(self, program: Program) -> None:
        self.lines, self.results = program.lines, program.results
        self._numbers = {*program.numbers}
        for i, line in enumerate(self.lines):
            if line.word in ("add", "sub"):
                self.lines = [*self.lines[:i], self._joined(line), *self.lines[i + 1 :]]
        self.lines = Program(self.lines, self.results).lines

    def _joined(self, line: Line) -> Line:
        """Make ``x + s*a*b`` and ``x - s*a/b`` one operation, if nobody else wants the second term."""
        x, term = line.operands
        if line.word == "add" and not self._is_private(term):
            x, term = term, x
        if not self._is_list(x) or not self._is_private(term):
            return line
        factors: list[Any] = []  # numbers and lists that are multiplied
        divisor = None
        pending = [term]
        while pending:
            made = self._made(pending[-1])
            if made is not None and made.word == "mul" and self._is_private(pending[-1]):
                pending[-1:] = made.operands
            elif (
                made is not None
                and made.word == "div"
                and divisor is None
                and self._is_private(pending[-1])
                and self._is_list(made.operands[1])
            ):
                divisor = made.operands[1]
                pending[-1:] = made.operands[:1]
            else:
                factors.insert(0, pending.pop())
        tensors = [factor for factor in factors if self._is_list(factor)]
        sign = -1 if line.word == "sub" else 1
        if divisor is None and len(tensors) in (1, 2):
            return replace(line, word="add_product", operands=(x, *factors, sign))
        if divisor is not None and len(tensors) == 1:
            return replace(line, word="add_quotient", operands=(x, *factors, divisor, sign))
        return line

    def _made(self, register: Any) -> Line | None:
        return next((line for line in self.lines if line.out == register), None)

    def _is_private(self, register: Any) -> bool:
        """Made by one operation and read by one."""
        reads = sum(line.operands.count(register) for line in self.lines) + self.results.count(register)
        return self._made(register) is not None and reads == 1

    def _is_list(self, register: Any) -> bool:
        made = self._made(register)
        if made is not None:
            return any(map(self._is_list, made.operands))
        return isinstance(register, str) and register not in self._numbers


def update(
    variant: Variant,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    coefficients: Mapping[str, Any],
) -> None:
    """Apply a rule to many parameters of one device and dtype, and their states, in place.

    Args:
        variant: the rule with its options fixed.
        params, grads: tensors of the same shapes.
        states: for each parameter the states that ``variant`` keeps, by name.
        coefficients: the rule's coefficients, by name; numbers or 0-d tensors.
    """
    assert variant.program is not None, "the plan has asked"
    joined = _joined(variant.program)
    columns = [params, grads, *([own[name] for own in states] for name in variant.states)]
    numbers = {
        name: value.item() if isinstance(value, Tensor) else value
        for name, value in variant.program.values(coefficients).items()
    }
    registers = ("p", "g", *(STATE.format(name) for name in variant.states))
    for portion in _portions([[as_real(tensor) for tensor in column] for column in columns]):
        _run(joined, dict(zip(registers, portion, strict=True)), numbers)


@cache
def _joined(program: Program) -> Joined:
    return Joined(program)


def _portions(columns: list[list[Tensor]]) -> Iterator[list[list[Tensor]]]:
    """Cut all lists alike, large tensors along their first dimension, into portions of similar size."""
    most = max(LEAST_PORTION, int(PORTION * sum(tensor.numel() for tensor in columns[0])))
    portion: list[list[Tensor]] = [[] for _ in columns]
    filled = 0
    for tensors in zip(*columns, strict=True):
        for pieces in zip(*(_pieces(tensor, most) for tensor in tensors), strict=True):
            if filled and filled + pieces[0].numel() > most:
                yield portion
                portion, filled = [[] for _ in columns], 0
            for column, piece in zip(portion, pieces, strict=True):
                column.append(piece)
            filled += pieces[0].numel()
    if filled:
        yield portion


def _pieces(tensor: Tensor, most: int) -> Sequence[Tensor]:
    if tensor.numel() <= most or tensor.shape[0] == 1:
        return [tensor]
    rows = max(1, most * tensor.shape[0] // tensor.numel())
    return torch.split(tensor, rows)


# -- running a program ---------------------------------------------------------------------------------


def _run(program: Joined, targets: dict[str, list[Tensor]], numbers: Mapping[str, float]) -> None:
    """Run a program on lists of tensors and write the results over parameters and states."""
    registers: dict[str, Any] = {**targets, **numbers}
    for line in program.lines:
        operands = [registers[name] if isinstance(name, str) else name for name in line.operands]
        # Memory that may be overwritten: of anything that is no longer needed but the gradient.
        free = [isinstance(name, str) and name in line.dying and name != "g" for name in line.operands]
        registers[line.out] = lists.apply(line.word, operands, free)
        for name in line.dying:
            del registers[name]
    written = [target for name, target in targets.items() if name != "g"]
    results = [registers[name] for name in program.results]
    # A result may stand in the memory of another target, and would be gone when that one is written.
    results = [
        [tensor.clone() for tensor in result]
        if any(result is other for other in written if other is not own)
        else result
        for own, result in zip(written, results, strict=True)
    ]
    for own, result in zip(written, results, strict=True):
        if result is not own:
            torch._foreach_copy_(own, result)
