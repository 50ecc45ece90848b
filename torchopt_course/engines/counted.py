"""Coefficients of a step whose number only a device knows, as a program that the device can follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from .rule.coefficients import read_coefficients
from .rule.number_program import NumberProgram

# A program that is read for this step and holds no condition of it holds for all.
SOME_STEP = 2.0


class Declared(Protocol):
    """What is asked of an optimizer."""

    coefficients: Any
    _asks_first: bool

    def _coefficient_options(self, group: Mapping[str, Any]) -> dict[str, Any]: ...


class Counted(NamedTuple):
    """Attributes:
    program: computes the coefficients of any step.
    registers: what stands in its registers for the options as they are; what depends on the step is of
        another one.
    """

    program: NumberProgram
    registers: list[float]

    @property
    def coefficients(self) -> dict[str, Any]:
        """As the function returns them, for that other step."""
        return self.program.coefficients(self.registers)


class Reader:
    """Reads the coefficients of one group, once for as long as what was read holds."""

    def __init__(self) -> None:
        self._read: tuple[Any, tuple[type, ...], NumberProgram | str] | None = None

    def now(self, optimizer: Declared, group: Mapping[str, Any]) -> Counted | None:
        """With the options of today; ``None``: the function itself must be asked."""
        options = optimizer._coefficient_options(group)
        if optimizer._asks_first or any(isinstance(value, Tensor) for value in options.values()):
            return None
        function, kinds = type(optimizer).coefficients, tuple(map(type, options.values()))
        known = self._read
        if known is not None and known[0] is function and known[1] == kinds:
            program = known[2]
            if isinstance(program, str):
                return None
            if program.holds() and (counted := _counted(program, options)) is not None:
                return counted
        program = read_coefficients(optimizer.coefficients, options, step=SOME_STEP)
        if not isinstance(program, str) and chooses_by_step(program):
            program = "chooses by the step"
        self._read = function, kinds, program
        return None if isinstance(program, str) else _counted(program, options)


def _counted(program: NumberProgram, options: Mapping[str, Any]) -> Counted | None:
    numbers = program.values(options, step=SOME_STEP)
    registers = None if numbers is None else program.evaluate(numbers)
    return None if registers is None else Counted(program, registers)


def of_the_step(program: NumberProgram) -> set[int]:
    """The registers that depend on the step."""
    depend = {i for i, place in enumerate(program.inputs) if place == ("step", None)}
    for i, operation in enumerate(program.operations, len(program.inputs) + len(program.constants)):
        if not depend.isdisjoint(operation.operands):
            depend.add(i)
    return depend


def chooses_by_step(program: NumberProgram) -> bool:
    """Whether it is a program for some steps only."""
    depend = of_the_step(program)
    return any(not depend.isdisjoint(condition.operands) for condition in program.conditions)
