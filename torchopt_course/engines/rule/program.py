"""A rule as a straight line of operations, which every engine reads in its own language.

Whatever Python there is in a rule (helpers, closures, globals, loops, choices by coefficients) has been run
once, by :mod:`.tracing`; what is left are words, registers and numbers. So a program is all that there is to
know: two rules with the same program compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .words import REDUCTIONS, TENSORS

Number = float | int
# The registers that a program starts with are "p", "g" and these, with a name in the place of the braces.
STATE, NUMBER = "state_{}", "number_{}"


@dataclass(frozen=True)
class Line:
    """One operation of a rule: ``out = word(*operands)``.

    Attributes:
        out: the register of the result.
        word: what is done, see :mod:`.words`.
        operands: registers (``str``) and numbers.
        of_numbers: whether it is computed of coefficients alone.
        per_tensor: whether it gives one number for each tensor: a reduction, or something computed of some.
        dying: the registers that nobody reads afterwards.
    """

    out: str
    word: str
    operands: tuple[str | Number, ...]
    of_numbers: bool = False
    per_tensor: bool = False
    dying: frozenset[str] = frozenset()


class Program:
    """What a rule does to one element, or to one tensor.

    Args:
        lines: the operations, in order.
        results: the registers of the new ``p`` and the new states.

    Attributes:
        lines: the operations on tensors that the results need.
        numbers: the registers of numbers that those read: coefficients, and what is computed of them.
        arithmetic: the operations on numbers alone.
        reductions: those of the lines that make a number of a tensor.
    """

    def __init__(self, lines: list[Line], results: tuple[str, ...]) -> None:
        self.results = results
        needed = set(results)
        kept: list[Line] = []
        for line in reversed(lines):
            if line.out in needed:
                reads = {name for name in line.operands if isinstance(name, str)}
                kept.append(replace(line, dying=frozenset(reads - needed)))
                needed |= reads
        self.lines = [line for line in reversed(kept) if not line.of_numbers]
        self.arithmetic = [line for line in reversed(kept) if line.of_numbers]
        self.reductions = [line for line in self.lines if line.word in REDUCTIONS]
        computed = {line.out for line in self.arithmetic}
        prefix = NUMBER.format("")
        read = dict.fromkeys(name for line in self.lines for name in line.operands if isinstance(name, str))
        self.numbers = tuple(name for name in read if name in computed or name.startswith(prefix))
        self._coefficients = [(name, name.removeprefix(prefix)) for name in self.numbers]

    def values(self, coefficients: Mapping[str, Any]) -> dict[str, Any]:
        """What stands in the registers of :attr:`numbers`, given the coefficients."""
        if not self.arithmetic:  # most often, and each step waits for this
            return {register: coefficients[name] for register, name in self._coefficients}
        registers = {NUMBER.format(name): value for name, value in coefficients.items()}
        for line in self.arithmetic:
            operands = [registers[name] if isinstance(name, str) else name for name in line.operands]
            registers[line.out] = TENSORS[line.word](*operands)
        return {name: registers[name] for name in self.numbers}
