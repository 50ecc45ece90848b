"""Where the step count lives on the device: each launch computes what depends on it, in double precision.

The host knows the options, and with them everything else; it never waits for the count. A launch of its own
counts first, for the programs of the next one read what it has written.
"""

from __future__ import annotations

from typing import NamedTuple

from ..counted import chooses_by_step, of_the_step
from ..native.compiler import NoWord
from ..rule.number_program import NumberProgram
from ..rule.program import NUMBER, Line, Program
from .blocks import OF_NUMBERS, SourceText


class OfStep(NamedTuple):
    """The coefficients of a rule that depend on the step.

    Attributes:
        step: the register of the step, by its number in the program of the coefficients.
        given: the registers that the host fills.
        lines: what is computed of them, ``r`` before their numbers.
        numbers: what the rule's program calls the results, and their registers.
    """

    step: int
    given: tuple[int, ...]
    lines: tuple[str, ...]
    numbers: tuple[tuple[str, int], ...]

    @property
    def names(self) -> frozenset[str]:
        """The numbers of the rule's program that the device computes."""
        return frozenset(name for name, _ in self.numbers)

    def prologue(self, address: str, kind: str, real: str) -> list[str]:
        """What stands before everything else in a kernel.

        Args:
            address: the text that gives that of the step count, which is of this kind.
            real: the precision in which the rule computes.
        """
        return [
            *(f"r{i} = tl.full((), r{i}, tl.float64)" for i in self.given),
            f"r{self.step} = tl.load(({address}).to(tl.pointer_type(tl.{kind}))).to(tl.float64)",
            *self.lines,
            *(f"{name} = r{register}.to(tl.{real})" for name, register in self.numbers),
        ]


def of_step(coefficients: NumberProgram, program: Program) -> OfStep | None:
    """What a kernel computes of the step; ``None`` if that is nothing, or it has no word for something.

    Args:
        program: of the rule.
    """
    depend, begin = of_the_step(coefficients), len(coefficients.inputs) + len(coefficients.constants)
    named = _registers_of(coefficients)
    numbers = [(name, named[name]) for name in program.numbers if named.get(name) in depend]
    if program.arithmetic or not numbers or any(name not in named for name in program.numbers):
        return None
    needed, lines = {register for _, register in numbers}, list[Line]()
    for i in range(begin + len(coefficients.operations) - 1, begin - 1, -1):
        operation = coefficients.operations[i - begin]
        if i in needed & depend:
            if operation.word not in OF_NUMBERS:
                return None
            needed.update(operation.operands)
            lines.append(Line(f"r{i}", operation.word, tuple(f"r{place}" for place in operation.operands)))
    text = SourceText(lines[::-1], (), "float64").per_tensor
    step = coefficients.inputs.index(("step", None))
    return OfStep(step, tuple(sorted(needed - depend)), tuple(text), tuple(numbers))


def of_any_step(coefficients: NumberProgram, program: Program) -> OfStep | None:
    """The same for all steps to come; ``None`` if nothing that the rule's program reads depends on them.

    Raises:
        NoWord: it is to be computed, and a kernel cannot do it.
    """
    depend, named = of_the_step(coefficients), _registers_of(coefficients)
    if not program.arithmetic and all(named.get(name) not in depend for name in program.numbers):
        return None
    made = of_step(coefficients, program)
    if made is None or chooses_by_step(coefficients):
        raise NoWord("its step counts are on a device, where the host does not read them")
    return made


def _registers_of(coefficients: NumberProgram) -> dict[str, int]:
    """Where the coefficients stand that are numbers, by what a rule's program calls them."""
    return {
        NUMBER.format(name): register
        for name, register in coefficients.results.items()
        if type(register) is int  # and no truth value
    }


def count_source(width: int, kind: str, *, scaled: bool) -> str:
    """A kernel that counts a step of each tensor of a list, unless a gradient has overflowed."""
    return f"""
def count(table, rows, {"found_inf, " * scaled}BLOCK: tl.constexpr):
    row = tl.load(rows + tl.program_id(0))
    at_step = tl.load(table + row * {width} + {width - 1}).to(tl.pointer_type(tl.{kind}))
    alive = {"tl.where(tl.load(found_inf) == 0, 1, 0)" if scaled else "1"}
    tl.store(at_step, tl.load(at_step) + alive)
"""
