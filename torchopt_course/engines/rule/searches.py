"""A rule with numbers over several tensors, cut at them into programs of one tensor at a time.

Such a number is known when all tensors of the group, or of the optimizer, have been visited, and only then
can be computed what depends on it. So a first program visits each tensor and makes a number of it, as any
rule with reductions does; these are put together (:mod:`..several`), and to the next program the result is a
coefficient. The last program is what remains of the rule: it updates.

What is computed of such numbers and of coefficients alone (``max_norm / norm``, say) is arithmetic of numbers
too: it is done once for all tensors, in double precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

from .placeholders import RuleError
from .program import NUMBER, SEVERAL, Line, Number, Program
from .words import OVER, TRUTHS

Operand = str | Number


class Wanted(NamedTuple):
    """A number over several tensors.

    Attributes:
        key: what it is called among the coefficients of the programs that follow.
        word: how it is made.
        over: of which tensors, ``"group"`` or ``"all"``.
    """

    key: str
    word: str
    over: str

    @property
    def number(self) -> int:
        """Its place among all that the rule asks for."""
        return int(self.key.rpartition(" ")[2])


class Search(NamedTuple):
    """A program that finds numbers over several tensors.

    Attributes:
        program: makes of each tensor what is to be put together; its results are these numbers, in order.
        wanted: the numbers that they are for.
    """

    program: Program
    wanted: tuple[Wanted, ...]


class Cut(NamedTuple):
    """A rule, cut.

    Attributes:
        searches: the programs that come first, in order; none if there are no numbers over several tensors.
        program: what updates the tensors.
        renewal: what computes the options that the rule renews, of numbers alone.
    """

    searches: tuple[Search, ...]
    program: Program
    renewal: Program


# Of each tensor is made what its name says, but for these: they are not means of means.
_OF_ONE = {"mean": "sum"}


def cut(owner: str, lines: Sequence[Line], results: tuple[str, ...], renewed: Mapping[str, str]) -> Cut:
    """Cut a rule at its numbers over several tensors.

    Args:
        owner: whose rule it is, for error messages.
        lines: all that it does, in order.
        results: the registers of the new ``p`` and states.
        renewed: the registers of the options that it renews, by name.

    Raises:
        TypeError: one of these is not the same for all tensors.
    """
    whole = Program([*lines], (*results, *renewed.values()), owner=owner)
    if not renewed and all(line.over == OVER[0] for line in whole.reductions):
        return Cut((), whole, Program([], (), owner=owner))
    needed = {line.out for line in (*whole.lines, *whole.arithmetic)}
    return _Cutter(owner, [line for line in lines if line.out in needed]).cut(results, renewed)


class _Cutter:
    """What is known of the registers on the way through a rule."""

    def __init__(self, owner: str, lines: Iterable[Line]) -> None:
        self._owner = owner
        self.lines: list[Line] = []
        self._names: dict[Operand, Operand] = {}  # what a register of the rule is called in the programs
        self._rounds: dict[Operand, int] = {}  # how many searches come before it
        self._numbers: set[str] = set()  # what is the same for all elements of all tensors
        self._truths: set[str] = set()  # those among them that are true or false
        self._wanted: list[list[tuple[Line, Wanted]]] = []
        for line in lines:
            self._take(replace(line, operands=tuple(self._names.get(o, o) for o in line.operands)))

    def cut(self, results: tuple[str, ...], renewed: Mapping[str, str]) -> Cut:
        searches = []
        for found in self._wanted:
            parts = [
                Line(f"part_{k}", _OF_ONE.get(line.word, line.word), line.operands, per="tensor")
                for k, (line, _) in enumerate(found)
            ]
            program = self._program([*self.lines, *parts], tuple(part.out for part in parts))
            searches.append(Search(program, tuple(wanted for _, wanted in found)))
        registers = {name: str(self._names.get(register, register)) for name, register in renewed.items()}
        for name, register in registers.items():
            if not self._is_number(register):
                raise RuleError(
                    f"renewed {name!r} with a number that is not the same for all tensors: make it one of "
                    "coefficients and of numbers with over='group' or over='all'"
                )
        update, renewal = (self._program(self.lines, of) for of in (results, tuple(registers.values())))
        return Cut(tuple(searches), update, renewal)

    def _program(self, lines: list[Line], results: tuple[str, ...]) -> Program:
        return Program(lines, results, self._truths, owner=self._owner)

    def _take(self, line: Line) -> None:
        before = max((self._rounds.get(operand, 0) for operand in line.operands), default=0)
        if line.over != OVER[0]:
            self._rounds[self._take_number(line, before)] = before + 1
            return
        # A truth value becomes a number in the precision of a tensor: here of none.
        own = line.operands[:1] if line.word == "real" else line.operands
        if not line.of_numbers and line.per_tensor and all(map(self._is_number, own)):
            line = replace(line, of_numbers=True, operands=(*own, 1.0) if line.word == "real" else own)
        if line.of_numbers:
            self._add(line.out, line.word)
        else:
            line = self._as_of_numbers(line)
        self._rounds[line.out] = before
        self.lines.append(line)

    def _take_number(self, line: Line, before: int) -> str:
        """A number over several tensors: the search that finds it, its register from then on."""
        register = SEVERAL.format(sum(map(len, self._wanted)))
        if len(self._wanted) == before:
            self._wanted.append([])
        self._wanted[before].append((line, Wanted(register.replace("_", " "), line.word, line.over)))
        self._names[line.out] = register
        self._add(register, line.word)
        return register

    def _add(self, register: str, word: str) -> None:
        self._numbers.add(register)
        if word in TRUTHS:
            self._truths.add(register)

    def _is_number(self, operand: Operand) -> bool:
        is_given = not isinstance(operand, str) or operand.startswith(NUMBER.format(""))
        return is_given or operand in self._numbers

    def _as_of_numbers(self, line: Line) -> Line:
        """Said with numbers where there were tensors of one element."""
        operands = line.operands
        if line.word in ("maximum", "minimum") and any(map(self._is_number, operands)):
            bound, x = sorted(operands, key=self._is_number, reverse=True)
            bounds = (bound, inf) if line.word == "maximum" else (-inf, bound)
            return replace(line, word="clamp", operands=(x, *bounds))
        if line.word == "where" and all(map(self._is_number, operands[1:])):
            like: Operand = "p"
            if line.per != "element":
                like = self._also(Line(f"{line.out}_real", "real", (operands[0], "p"), per=line.per))
            filled = Line(f"{line.out}_else", "fill", (like, operands[2]), per=line.per)
            return replace(line, operands=(*operands[:2], self._also(filled)))
        return line

    def _also(self, line: Line) -> str:
        self.lines.append(line)
        return line.out
