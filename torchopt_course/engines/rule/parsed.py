"""A rule as a value: what it is called with, what it does, whether it still is what it was.

A *rule* is a plain function ``rule(p, g, *states, *coefficients) -> (p, *states)`` that uses nothing but
operators and functions of the module global ``xp``. It is written once, and read once (:mod:`.tracing`) for
each choice of its options; each engine follows what was read. A rule that cannot be read so is run by torch,
as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from .growth import growth
from .messages import kind, line_of, said, say_where
from .placeholders import RuleError
from .program import Program
from .reads import Reads
from .rebinding import with_torch
from .searches import Search
from .signature import arguments, results
from .tracing import Reading, read
from .words import LINES

Rule = Callable[..., Any]
# A notebook cell is run again a few times; a number that changes in each step is no reason to compile anew.
MOST_CHANGES = 8


class ParsedRule:
    """A rule and the names of what it is called with.

    Args:
        owner: whose rule it is, for error messages.
        rule: the function.
        states: all states that it may keep, in the order of its parameters and results.
        before: what was read before; some of it has changed.
        renews: the options whose new values it returns after the states.

    Attributes:
        arguments: the names of its parameters after ``p, g``.
        reads: what the rule refers to by name.
        states_are_alike: whether each state has its parameter's shape.

    Raises:
        TypeError: the rule is no plain function, or its parameters are not ``p, g, *states, *coefficients``.
    """

    states_are_alike = True

    def __init__(
        self,
        owner: str,
        rule: Rule,
        states: tuple[str, ...],
        before: ParsedRule | None = None,
        renews: tuple[str, ...] = (),
    ) -> None:
        self.owner = owner
        self.rule = rule
        self.states = states
        self.renews = renews
        self.arguments = arguments(owner, rule, states)
        self.reads = Reads(rule)  # type: ignore[arg-type]
        self._changes: int = 0 if before is None or before.rule is not rule else before._changes + 1
        self._variants: dict[object, Specialization] = {}

    @property
    def is_read(self) -> bool:
        """Whether it has been read, for some choice of its options."""
        return bool(self._variants)

    @property
    def is_elementwise(self) -> bool:
        """Whether the rule may be applied to parts of a tensor, as far as it has been read."""
        return all(specialization.is_elementwise for specialization in self._variants.values())

    @property
    def sees_several(self) -> bool:
        """Whether it makes numbers of several tensors, or for all of them, as far as it has been read."""
        return bool(self.renews) or any(specialization.searches for specialization in self._variants.values())

    @property
    def squares(self) -> frozenset[str]:
        """The states that hold squares of gradients, as far as it has been read."""
        return frozenset(
            name
            for specialization in self._variants.values()
            if specialization.program is not None
            for name, power in zip(specialization.states, growth(specialization.program)[1:], strict=True)
            if power >= 2
        )

    def holds(self) -> bool:
        """Whether all that the rule refers to (numbers by name, helpers, ...) is as it was."""
        return self.reads.hold()

    @property
    def changeable(self) -> str:
        """What the rule refers to that may change without notice or all the time, if anything."""
        if self._changes > MOST_CHANGES:
            return "reads names by which something else is called again and again"
        return self.reads.changeable

    def specialize(
        self, kept: tuple[str, ...], maximize: bool, coefficients: Mapping[str, Any], in_parts: bool = False
    ) -> Specialization:
        """Tell apart which coefficients are fixed when a kernel is compiled and which are not.

        ``None`` and booleans are fixed: they say which terms of the formula there are. Numbers are not.

        Args:
            kept: the states that are kept.
            maximize: whether the rule gets ``-g``.
            coefficients: the rule's coefficients, by name.
            in_parts: whether the rule will see parts of tensors, as of a ``DTensor`` each process has one.

        Raises:
            TypeError: the rule wants a coefficient that ``coefficients`` does not have, or the reverse; one
                of them is no number; the rule cannot mean the same on every engine.
            RuntimeError: the rule would see parts, but is not elementwise.
        """
        if not isinstance(coefficients, Mapping):
            raise TypeError(
                f"{self.owner}.coefficients returned {kind(coefficients)}, expected a dictionary of numbers"
            )
        choices: list[tuple[str, bool | None]] = []
        for name, value in coefficients.items():
            cls = value.__class__
            if cls is float or cls is int:
                continue
            if value is None or cls is bool or cls is np.bool_:
                choices.append((name, value if value is None else bool(value)))
            else:
                self._check_number(name, value)
        key = (kept, maximize, tuple(coefficients), *choices)
        specialization = self._variants.get(key)
        if specialization is None:
            wanted = [name for name in self.arguments if name not in self.states]
            if twice := [name for name in coefficients if name in self.states]:
                raise TypeError(f"{self.owner} calls both a state and a coefficient {twice[0]!r}")
            if set(wanted) != set(coefficients):
                raise TypeError(
                    f"{self.owner}.rule takes the coefficients {sorted(wanted)}, "
                    f"but coefficients() returned {sorted(coefficients, key=str)}"
                )
            fixed = dict.fromkeys((name for name in self.states if name not in kept), None) | dict(choices)
            specialization = self._variants[key] = self._specialized(fixed, maximize)
        if in_parts:
            specialization.refuse_parts("a parameter is a DTensor, of which each process has a shard")
        return specialization

    def _specialized(self, fixed: Mapping[str, bool | None], maximize: bool) -> Specialization:
        return Specialization(self, fixed, maximize)

    def _check_number(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            fits, expected = not value.is_complex() and value.numel() == 1, "one real number"
        else:
            fits = isinstance(value, int | float | np.number) and not isinstance(value, np.complexfloating)
            expected = "a number, a boolean, None or a tensor of one element"
        if not fits:
            raise RuleError(
                f"{self.owner}.coefficients returned {kind(value)} for {name!r}, expected {expected}"
            )


class Specialization:
    """A formula with its options fixed: exactly what an engine compiles one kernel for.

    Attributes:
        fixed: the arguments that are known: ``None`` or a boolean.
        states: the states that are kept, in the rule's order.
        searches: what finds the numbers over several tensors that the program needs, in order.
        program: what the rule does, in words that every engine knows; ``None`` if only torch can run it.
        renewal: what gives the new values of the options that the rule renews, in their order.
        reason: why there is no program.
        is_elementwise: whether the rule does to each element what it would do if that stood alone.

    Raises:
        TypeError: the rule cannot mean the same on every engine.
    """

    def __init__(self, formula: ParsedRule, fixed: Mapping[str, bool | None], maximize: bool) -> None:
        self.formula = formula
        self.fixed = fixed
        self.maximize = maximize
        self.states = tuple(name for name in formula.states if name not in fixed)
        self.searches: tuple[Search, ...] = ()
        self.program: Program | None
        self.renewal: Program | None
        self._read()

    def _read(self) -> None:
        formula = self.formula
        numbers = [n for n in formula.arguments if n not in self.fixed and n not in formula.states]
        reading = read(formula.owner, self._call, self.states, numbers, self.maximize, formula.renews)
        if formula.changeable:
            # The reading may say by tomorrow what is wrong, and nobody would know.
            if reading.cut is not None and (reading.cut.searches or formula.renews):
                raise RuleError(
                    f"{formula.owner}.rule makes numbers of several tensors, but {formula.changeable}: "
                    "give it as an option, through coefficients()"
                )
            reading = Reading(None, f"{formula.owner}.rule {formula.changeable}", False)
        cut, self.reason, self.is_elementwise = reading
        if cut is None:
            self.program = self.renewal = None
        else:
            self.searches, self.program, self.renewal = cut

    def in_torch(
        self, p: Tensor, g: Tensor, states: Mapping[str, Tensor | None], coefficients: Mapping[str, Any]
    ) -> list[Any]:
        """The new ``p`` and kept states as the rule itself gives them, given tensors of torch.

        Raises:
            TypeError: the rule returns too few or too many.
        """
        try:
            return self._call(p, -g if self.maximize else g, states, coefficients)
        except RuleError:
            raise
        except Exception as error:
            say_where(error, f"{self.formula.owner}.rule({said(coefficients)}){line_of(error)}")
            raise

    def stage(self, number: int | None) -> Program | None:
        """The program of the search of that number, or of the update; ``None`` if there is none."""
        if number is None:
            return self.program
        return self.searches[number].program if number < len(self.searches) else None

    @cached_property
    def reduces_lines(self) -> bool:
        """Whether it makes a number of each row or column of a tensor."""
        programs = [*(search.program for search in self.searches), *filter(None, [self.program])]
        return any(line.per in LINES for program in programs for line in program.lines)

    def refuse_parts(self, why: str) -> None:
        """Refuse to apply the rule to parts of a tensor, if that is not the same as to the whole.

        Raises:
            RuntimeError: it is not elementwise.
        """
        if not self.is_elementwise:
            raise RuntimeError(
                f"{self.reason}; but {why}, and a rule that is not elementwise needs the whole"
            )

    @cached_property
    def _rule(self) -> Rule:
        return with_torch(self.formula.rule)  # type: ignore[arg-type]

    def _call(self, p: Any, g: Any, states: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[Any]:
        values = {**numbers, **self.fixed, **states}
        returned = self._rule(p, g, **{name: values[name] for name in self.formula.arguments})
        given = {name: states[name] for name in self.states}
        return results(self.formula.owner, returned, self.formula.states, self.formula.renews, given)
