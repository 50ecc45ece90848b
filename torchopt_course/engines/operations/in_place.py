"""A program as a function that writes in place: over parameters and states, and what dies on the way.

A rule's program is a straight line of operations. Knowing the whole line, one knows when a value is used for
the last time: the operation may write over it, parameters and states included. The gradient is left alone,
for it belongs to the user. Which value lives in whose memory is decided once, here, and said in Python, as
the text of a function; which calls it makes is a matter of the language: of tensors
(:mod:`.tensors`) or of lists of tensors (:mod:`.lists`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from math import inf, isfinite, nan
from typing import Any, Protocol

import torch

from ..rule.program import STATE, Program
from ..rule.words import TENSORS
from .choice import where
from .joined import Joined

# In the arithmetic of a tensor with a number torch lets the number be infinite; elsewhere it raises.
_UNBOUNDED = frozenset({"add", "sub", "mul", "div"})
_MOST_INTEGER = 2**63 - 1
# What the texts refer to by name.
_NAMES: dict[str, Any] = {**TENSORS, "where": where, "torch": torch, "inf": inf, "nan": nan}


class Language(Protocol):
    """How operations on whole tensors are said.

    Attributes:
        NAME: what it is called.
    """

    NAME: str

    def in_place(self, word: str, operands: Sequence[str], is_tensor: Sequence[bool], at: int) -> str | None:
        """A statement that writes ``word(*operands)`` over operand ``at``; ``None`` if there is none."""

    def fresh(self, word: str, operands: Sequence[str], is_tensor: Sequence[bool]) -> str:
        """An expression for ``word(*operands)`` in memory of its own."""

    def copy(self, target: str, source: str) -> str:
        """A statement that copies."""

    def clone(self, source: str) -> str:
        """An expression for a copy."""


class InPlace:
    """A program in a language of whole tensors.

    Args:
        program: what a rule does.
        states: the names of the states that are kept.
        language: :mod:`.tensors` or :mod:`.lists`.

    Attributes:
        text: the functions that are run.
        reduces: whether it makes numbers of whole tensors, or of their rows or columns.
        needs_memory: whether there are intermediate results that stand in nobody's place.
    """

    def __init__(self, program: Program, states: Sequence[str], language: Language) -> None:
        joined = Joined(program)
        self.reduces = any(line.per != "element" for line in program.lines)
        read = dict.fromkeys(operand for line in joined.lines for operand in line.operands)
        numbers = [each for each in read if isinstance(each, str) and not joined.is_tensor(each)]
        bounded = {each for line in joined.lines if line.word not in _UNBOUNDED for each in line.operands}
        self._is_bounded = [name in bounded for name in numbers]
        literals = [each for each in read if not isinstance(each, str)]
        self._most = max((abs(each) for each in literals if each in bounded and isfinite(each)), default=0)
        self._is_beyond = any(isinstance(each, int) and abs(each) > _MOST_INTEGER for each in literals)
        targets = ["p", *(STATE.format(name) for name in states)]
        statements = list(_statements(joined, targets, language))
        self.needs_memory = any(" = " in statement for statement in statements)
        products = [
            f"{name} = {' * '.join(map(str, factors)) or '1'}" for name, factors in joined.scales.items()
        ]
        self.text = "\n".join(
            (
                f"def numbers({', '.join(program.numbers)}):",
                *(f"    {truth} = {truth} != 0" for truth in sorted(program.truths)),
                *(f"    {product}" for product in products),
                f"    return [{', '.join(numbers)}]",
                "",
                f"def update({', '.join(('rows', *numbers))}):",
                f"    for {', '.join(('p', 'g', *targets[1:]))} in rows:",
                *(f"        {statement}" for statement in statements or ["pass"]),
                "",
            )
        )
        names = dict(_NAMES)
        exec(self.text, names)
        self._numbers, self._update = names["numbers"], names["update"]

    def numbers(self, values: Iterable[float], dtype: torch.dtype) -> list[float] | None:
        """The numbers that :meth:`run` needs for tensors of a dtype; ``None`` where an operation would fail.

        torch raises at finite numbers beyond the range of a dtype, in some operations.

        Args:
            values: what stands in the program's :attr:`~..rule.program.Program.numbers`.
        """
        numbers: list[float] = self._numbers(*values)
        most = torch.finfo(dtype).max
        if self._is_beyond or self._most > most:
            return None
        for number, is_bounded in zip(numbers, self._is_bounded, strict=True):
            if not -most <= number <= most and is_bounded and isfinite(number):
                return None
        return numbers

    def run(self, rows: Iterable[Sequence[Any]], numbers: Sequence[float]) -> None:
        """Follow the program for each row ``(p, g, *states)``."""
        self._update(rows, *numbers)


def in_place(program: Program, states: Sequence[str], language: Language) -> InPlace:
    """As :class:`InPlace`; made once for each program and language."""
    known = _KNOWN.setdefault(program, {})
    if language.NAME not in known:
        known[language.NAME] = InPlace(program, states, language)
    return known[language.NAME]


_KNOWN: weakref.WeakKeyDictionary[Program, dict[str, InPlace]] = weakref.WeakKeyDictionary()


def _statements(program: Joined, targets: Sequence[str], language: Language) -> Iterator[str]:
    # A number of a tensor or of each row has no place for a tensor, nor a tensor's memory use for numbers.
    per = {line.out: line.per for line in program.lines}
    memory = {name: name for name in ("g", *targets)}  # the variable in whose memory a value lives
    for line in program.lines:
        operands = [memory.get(each, each) if isinstance(each, str) else repr(each) for each in line.operands]
        is_tensor = [program.is_tensor(each) for each in line.operands]
        statement, out = None, line.out
        for at, each in enumerate(line.operands):
            fits = is_tensor[at] and per.get(str(each), "element") == line.per
            if statement is None and fits and each in line.dying and each != "g":
                statement, out = language.in_place(line.word, operands, is_tensor, at), operands[at]
        if statement is None:
            statement, out = f"{line.out} = {language.fresh(line.word, operands, is_tensor)}", line.out
        yield statement
        memory[line.out] = out
        dead = {memory[each] for each in line.dying if program.is_tensor(each)} - {out, "g", *targets}
        if dead:  # its memory is the best for what is made next
            yield f"del {', '.join(sorted(dead))}"
    moved = {
        target: memory[name]
        for target, name in zip(targets, program.results, strict=True)
        if memory[name] != target
    }
    # What stands in the memory of a target that is written now would be gone.
    for target, source in moved.items():
        if source in moved:
            yield f"new_{target} = {language.clone(source)}"
    for target, source in moved.items():
        yield language.copy(target, f"new_{target}" if source in moved else source)
    made = {
        name for target, source in moved.items() for name in (f"new_{target}" if source in moved else source,)
    }
    if made := made - {"g", *targets}:
        yield f"del {', '.join(sorted(made))}"
