"""A rule for whole tensors: nothing is read from it, it is run as it stands, with all of torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, wraps
from typing import Any

from torch import Tensor

from .parsed import ParsedRule, Rule, Specialization


def for_transforms(rule: Rule, *, stacked: bool) -> Rule:
    """The rule as it may stand between transforms, which look at what it was given afterwards.

    It gets copies, for it may write to them; one that takes stacks gets stacks of one.
    """

    @wraps(rule)
    def alone(p: Tensor, g: Tensor, **values: Any) -> Any:
        given = {name: _stack_of_one(value) if stacked else value for name, value in values.items()}
        if not stacked:
            return rule(p.clone(), g.clone(), **given)
        found = rule(_stack_of_one(p.clone()), _stack_of_one(g.clone()), **given)
        return tuple(map(_only, found)) if isinstance(found, tuple | list) else _only(found)

    return alone


def _stack_of_one(value: Any) -> Any:
    return value.unsqueeze(0) if isinstance(value, Tensor) else value


def _only(value: Any) -> Any:
    return value.squeeze(0) if isinstance(value, Tensor) else value


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
        self.program = self.renewal = None
        self.reason, self.is_elementwise = "its rule takes whole tensors", False

    @cached_property
    def _rule(self) -> Rule:
        return self.formula.rule
