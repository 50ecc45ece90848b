"""The programs of numbers of a bucket as one program for compiled code, see :mod:`.native.numbers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from .native import frame as f
from .rule.number_program import NumberProgram, Place
from .rule.program import NUMBER, SEVERAL, Line, Program
from .rule.words import OF_NUMBERS


class ImpossibleError(Exception):
    """The step has to go the usual way."""


class RegisterCode:
    """What computes the coefficients and what rules compute of them, in numbered registers.

    The registers are the inputs, the constants, the literals of the rule's own arithmetic, the numbers over
    several tensors, and one for each operation: first those of the coefficients, which must be finite, then
    those of numbers over several tensors.

    Args:
        coefficients: the program of these.
        programs: those of the rule that read them.
        several: how many numbers over several tensors there are.
        input_number: where an option stands among the values that are read in each step.

    Raises:
        ImpossibleError: there is a word that compiled code does not know.
    """

    def __init__(
        self,
        coefficients: NumberProgram,
        programs: Iterable[Program],
        several: int,
        input_number: Callable[[Place], int],
    ) -> None:
        of_options, of_several = _in_order(programs)
        lines = [*of_options, *of_several]
        literals = [float(o) for line in lines for o in line.operands if not isinstance(o, str)]
        begin = len(coefficients.inputs) + len(coefficients.constants)
        self.found = begin + len(literals)
        self.first_result = self.found + several
        self._begin = begin

        rows = [
            _row(f.OPCODES, each.word, [*map(self.moved, each.operands)]) for each in coefficients.operations
        ]
        self._known = {SEVERAL.format(i): self.found + i for i in range(several)} | {
            NUMBER.format(name): self.moved(register)
            for name, register in coefficients.results.items()
            if type(register) is int
        }
        next_literal = iter(range(begin, self.found))
        for line in lines:
            operands = [self._known[o] if isinstance(o, str) else next(next_literal) for o in line.operands]
            rows += _rows_of(line.word, operands, self.first_result + len(rows))
            self._known[line.out] = self.first_result + len(rows) - 1
        self.operations = len(rows)
        self.of_options = len(coefficients.operations) + len(of_options)
        conditions = [
            (f.OPCODES[each.word], *map(self.moved, each.operands), int(each.holds))
            for each in coefficients.conditions
        ]
        self.conditions = len(conditions)
        self.text = np.array([*rows, *conditions, (0,) * f.ROW_WORDS], dtype=np.int64)
        self.registers = np.zeros(self.first_result + len(rows) + 1)
        self.registers[len(coefficients.inputs) : self.found] = [*coefficients.constants, *literals]
        self.step_register = -1
        inputs = []
        for register, place in enumerate(coefficients.inputs):
            if place == ("step", None):
                self.step_register = register
            else:
                inputs += [input_number(place), register]
        self.inputs = np.array(inputs, dtype=np.int64)

    def moved(self, register: int) -> int:
        """Where a register of the coefficients stands: literals and what was found come in between."""
        return register + (self.first_result - self._begin if register >= self._begin else 0)

    def registers_of(self, names: Iterable[str]) -> list[int]:
        """Where numbers stand, by what programs call them."""
        return [self._known[name] for name in names]


def _in_order(programs: Iterable[Program]) -> tuple[list[Line], list[Line]]:
    """The arithmetic of all programs, each line once: of coefficients alone, and of several tensors too."""
    of_options: dict[str, Line] = {}
    of_several: dict[str, Line] = {}
    for program in programs:
        for line in program.arithmetic:
            of = [o for o in line.operands if isinstance(o, str)]
            is_of_several = any(o in of_several or o.startswith(SEVERAL.format("")) for o in of)
            (of_several if is_of_several else of_options)[line.out] = line
    if any(line.word not in OF_NUMBERS for line in of_options.values()):
        raise ImpossibleError
    return [*of_options.values()], [*of_several.values()]


def _rows_of(word: str, operands: Sequence[int], out: int) -> list[tuple[int, ...]]:
    """The operations of a word, whose first result goes to the register ``out``."""
    x, last = operands[0], operands[-1]
    composed: dict[str, list[tuple[str, Sequence[int]]]] = {
        "clamp": [("maximum", operands[:2]), ("minimum", [out, last])],
        "rsqrt": [("sqrt", [x]), ("reciprocal", [out])],
        "square": [("mul", [x, x])],
        "real": [("maximum", [x, x])],
        "fill": [("maximum", [last, last])],
    }
    said = composed.get(word, [(word, operands)])
    return [_row(f.OPCODES_OF_SEVERAL, each, of) for each, of in said]


def _row(known: Mapping[str, int], word: str, operands: Sequence[int]) -> tuple[int, ...]:
    if word not in known:
        raise ImpossibleError
    return (known[word], *operands, *[operands[-1]] * (f.ROW_WORDS - 1 - len(operands)))
