"""A rule as a straight line of operations, which every engine reads in its own language.

Whatever Python there is in a rule (helpers, closures, globals, loops, choices by coefficients) has been run
once, by :mod:`.tracing`; what is left are words, registers and numbers. So a program is all that there is to
know: two rules with the same program compute the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .arithmetic import computed, plain
from .messages import said, say_where
from .words import OVER, REDUCTIONS

Number = float | int
# The registers that a program starts with are "p", "g" and these, with a name in the place of the braces;
# those of numbers over several tensors are given by number.
STATE, NUMBER, SEVERAL = "state_{}", "number_{}", "several_{}"


@dataclass(frozen=True)
class Line:
    """One operation of a rule: ``out = word(*operands)``.

    Attributes:
        out: the register of the result.
        word: what is done, see :mod:`.words`.
        operands: registers (``str``) and numbers.
        of_numbers: whether it is computed of coefficients alone.
        per: for each of what it gives a number: ``"element"``, or ``"row"``, ``"column"`` or ``"tensor"``,
            if it is a reduction or something computed of some.
        over: what is reduced, if it is a reduction: ``"tensor"``, or all tensors of ``"group"`` or ``"all"``.
        dying: the registers that nobody reads afterwards.
    """

    out: str
    word: str
    operands: tuple[str | Number, ...]
    of_numbers: bool = False
    per: str = "element"
    over: str = OVER[0]
    dying: frozenset[str] = frozenset()

    @property
    def per_tensor(self) -> bool:
        """Whether it gives one number for each tensor."""
        return self.per == "tensor"


class Program:
    """What a rule does to one element, or to one tensor.

    Args:
        lines: the operations, in order.
        results: the registers of the new ``p`` and the new states.
        truths: the registers of numbers that are true or false.
        owner: whose rule it is, for error messages.

    Attributes:
        lines: the operations on tensors that the results need.
        numbers: the registers of numbers that those read: coefficients, what is known of several tensors,
            and what is computed of them.
        arithmetic: the operations on numbers alone.
        reductions: those of the lines that make a number of a tensor.
        truths: those of the numbers that are true or false.
        is_search: whether its results are numbers of a tensor: nothing is written then.
    """

    def __init__(
        self,
        lines: list[Line],
        results: tuple[str, ...],
        truths: Collection[str] = frozenset(),
        *,
        owner: str = "",
    ) -> None:
        self._owner = owner
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
        self.is_search = not {line.out for line in self.reductions}.isdisjoint(results)
        computed = {line.out for line in self.arithmetic}
        read = dict.fromkeys(name for line in self.lines for name in line.operands if isinstance(name, str))
        self.numbers = tuple(name for name in read if name in computed or name.startswith(_OF_NUMBERS))
        self.truths = frozenset(truths).intersection(self.numbers)
        self._coefficients = [(name, _key(name)) for name in self.numbers]
        self._sees_several = any(is_of_several(name) for _, name in self._coefficients)

    def values(self, coefficients: Mapping[str, Any]) -> dict[str, Any]:
        """What stands in the registers of :attr:`numbers`, given the coefficients.

        Args:
            coefficients: by name. What is known of several tensors is a number of numpy's, or a tensor.
        """
        if not self._sees_several and not self.arithmetic:  # most often, and each step waits for this
            return {register: coefficients[name] for register, name in self._coefficients}
        registers = self._registers(coefficients)
        return {name: plain(registers[name]) for name in self.numbers}

    def number_results(self, coefficients: Mapping[str, Any]) -> list[Any]:
        """The results of a program of numbers alone; as :meth:`values`."""
        registers = self._registers(coefficients)
        return [plain(registers[name]) for name in self.results]

    def _registers(self, coefficients: Mapping[str, Any]) -> dict[str, Any]:
        registers = {_register(name): value for name, value in coefficients.items()}
        for line in self.arithmetic:
            operands = [registers[name] if isinstance(name, str) else name for name in line.operands]
            try:
                registers[line.out] = computed(line.word, operands)
            except Exception as error:
                of = f"{self._owner}.rule({said(coefficients)})"
                say_where(error, f"{of}, in {line.word}({', '.join(map(repr, operands))})")
                raise
        return registers


def is_of_several(key: str) -> bool:
    """Whether a number among the coefficients is one of several tensors."""
    return " " in key


_OF_NUMBERS = (NUMBER.format(""), SEVERAL.format(""))


def _key(register: str) -> str:
    """What a number is called among the coefficients; one of several tensors as no coefficient can be."""
    if register.startswith(SEVERAL.format("")):
        return register.replace("_", " ")
    return register.removeprefix(NUMBER.format(""))


def _register(key: str) -> str:
    return key.replace(" ", "_") if is_of_several(key) else NUMBER.format(key)
