"""Coefficients as a straight line of operations on double-precision numbers, which every engine can follow.

Whatever Python there was (helpers, loops, choices) has been run once, by :mod:`.coefficients`. A choice that
depended on a number was taken for the numbers of that day, and is kept as a :class:`Condition`: as long as
all conditions come out the same and all numbers are finite, the program gives what the function gives, bit
for bit. Otherwise it says nothing, and the function is asked.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .reads import Reads

# An option, or a place in one that is a tuple or list; `("step", None)` is the number of the step.
Place = tuple[str, int | None]

# What Python's numbers, and its `math`, get from the processor and from the C library as it is. (Not there:
# what Python computes in a way of its own, such as `hypot`, `gamma`, and `sum` from 3.12 on.)
WORDS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "pow": operator.pow, "mod": operator.mod, "floordiv": operator.floordiv,
    "neg": operator.neg, "abs": operator.abs,
    "floor": math.floor, "ceil": math.ceil, "trunc": math.trunc,
    "sqrt": math.sqrt, "exp": math.exp, "expm1": math.expm1,
    "log": math.log, "log2": math.log2, "log10": math.log10, "log1p": math.log1p,
    "sin": math.sin, "cos": math.cos, "tan": math.tan,
    "asin": math.asin, "acos": math.acos, "atan": math.atan, "atan2": math.atan2,
    "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh,
    "copysign": math.copysign, "fmod": math.fmod,
}  # fmt: skip
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
# Up to here every whole number is a number of double precision.
MOST_EXACT = 2**53


@dataclass(frozen=True)
class Operation:
    """``word(*operands)``, operands being registers: it fills the next register."""

    word: str
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """A choice that was taken: ``word(*operands)`` must be ``holds``. That a number is true is ``ne`` 0."""

    word: str
    operands: tuple[int, int]
    holds: bool


@dataclass(frozen=True)
class NumberProgram:
    """What a function of numbers does, for as long as it takes the same way.

    The registers are numbered: the inputs, then the constants, then one for each operation, in order.

    Attributes:
        inputs: where the numbers come from.
        types: what each of them is to Python, ``float`` or ``int``.
        constants: numbers that do not depend on the inputs; one may be infinite.
        operations: what is computed, in order; each result must be finite.
        conditions: what must come out as it did.
        results: the register of each coefficient; or the coefficient itself, a truth value or ``None``.
        fixed: options that are no numbers, and the types of sequences: it holds for these only.
        reads: what the function read by name: globals, closures, helpers.
    """

    inputs: tuple[Place, ...]
    types: tuple[type, ...]
    constants: tuple[float, ...]
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...]
    results: Mapping[str, int | bool | None]
    fixed: Mapping[Place, Any]
    reads: Reads

    def holds(self) -> bool:
        """Whether everything that the function reads by name is as it was."""
        return self.reads.hold()

    def values(
        self, options: Mapping[str, Any], *, step: float | None = None, first: bool | None = None
    ) -> list[float] | None:
        """The inputs, taken from options; ``None`` if these are of other kinds than those it was read for."""
        given = dict(places(options, step, first))
        if len(given) != len(self.inputs) + len(self.fixed):
            return None
        for place, value in self.fixed.items():
            if type(given.get(place)) is not type(value) or given[place] != value:
                return None
        values: list[Any] = [given.get(place) for place in self.inputs]
        if tuple(map(type, values)) != self.types or not all(map(is_exact, values)):
            return None
        return [float(value) for value in values]

    def evaluate(self, values: Sequence[float]) -> list[float] | None:
        """All registers, given the inputs; ``None`` if the program does not hold for these.

        This is the definition: engines that follow a program do the same. (A compiler that sees a constant in
        `pow` may write a product or a square root for it, which is another last bit: measured with numba for
        ``x ** 2.0``, ``x ** 0.5`` and ``2.0 ** x``. Give it constants as it is given inputs.)
        """
        if not all(map(math.isfinite, values)):
            return None
        registers = [*values, *self.constants]
        for operation in self.operations:
            try:
                result = WORDS[operation.word](*[registers[i] for i in operation.operands])
            except (ArithmeticError, ValueError):  # C says infinity, or not a number
                return None
            if isinstance(result, complex) or not math.isfinite(result):
                return None
            registers.append(result if isinstance(result, float) else _whole(operation, result, registers))
        for condition in self.conditions:
            a, b = (registers[i] for i in condition.operands)
            if COMPARISONS[condition.word](a, b) is not condition.holds:
                return None
        return registers

    def coefficients(self, registers: Sequence[float]) -> dict[str, float | bool | None]:
        """What the function would return, given all registers."""
        return {
            name: place if place is None or type(place) is bool else registers[place]
            for name, place in self.results.items()
        }


def _whole(operation: Operation, result: int, registers: Sequence[float]) -> float:
    """A whole number as C's floor, ceil and trunc give it: these keep the sign of a zero."""
    return math.copysign(result, registers[operation.operands[0]]) if result == 0 else float(result)


def places(
    options: Mapping[str, Any], step: float | None = None, first: bool | None = None
) -> Iterator[tuple[Place, Any]]:
    """What a function is given, one by one: numbers, what is no number, the types of sequences."""
    for name, value in (("step", step), ("first", first)):
        if value is not None:
            yield (name, None), value
    for name, value in options.items():
        if type(value) in (tuple, list):
            yield (name, None), type(value)
            yield from (((name, i), item) for i, item in enumerate(value))
        else:
            yield (name, None), value


def is_exact(number: Any) -> bool:
    """Whether a number is the same in double precision."""
    return isinstance(number, float) or -MOST_EXACT < number < MOST_EXACT
