"""A rule for whole tensors: nothing is read from it, it is run as it stands, with all of torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from .parsed import ParsedRule, Rule, Specialization


class WholeRule(ParsedRule):
    """A rule ``rule(p, g, *states, *coefficients) -> (p, *states)`` of whole tensors.

    States may have any shape and dtype, or be ``None``; coefficients may be anything.

    Args:
        owner, rule, states: as of :class:`.ParsedRule`.
        stacked: whether it gets tensors of one shape together, along a new first dimension.
    """

    states_are_alike = False

    def __init__(self, owner: str, rule: Rule, states: tuple[str, ...], *, stacked: bool) -> None:
        super().__init__(owner, rule, states)
        self.stacked = stacked

    @property
    def is_elementwise(self) -> bool:
        return False

    def holds(self) -> bool:
        return True  # it looks up for itself, each time, what it refers to

    def _check_number(self, name: str, value: Any) -> None:
        pass

    def _specialized(self, fixed: Mapping[str, bool | None], maximize: bool) -> Specialization:
        return _AsItStands(self, fixed, maximize)


class _AsItStands(Specialization):
    def _read(self) -> None:
        self.program, self.reason, self.is_elementwise = None, "its rule takes whole tensors", False

    @cached_property
    def _rule(self) -> Rule:
        return self.formula.rule
