"""What a rule is called with and gives back: ``rule(p, g, *states, *coefficients) -> (p, *states)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NoReturn

from .messages import kind
from .placeholders import RuleError

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments(owner: str, rule: Callable[..., Any], states: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a rule's parameters after ``p, g``.

    Raises:
        TypeError: it is no plain function, or cannot be called as rules are.
    """
    if type(rule) is not FunctionType:
        raise TypeError(f"{owner}.rule is {kind(rule)}, expected a plain function, with @staticmethod")
    parameters = inspect.signature(rule).parameters
    names = tuple(parameters)
    expected = ("p", "g", *states)
    if names[: len(expected)] != expected:
        hint = ": is @staticmethod missing?" if names[:1] in (("self",), ("cls",)) else ""
        raise TypeError(
            f"{owner}.rule must start with the parameters ({', '.join(expected)}), the states in the "
            f"order in which they are declared; got ({', '.join(names)}){hint}"
        )
    for name, parameter in parameters.items():
        if parameter.kind in _STARRED:
            raise TypeError(f"{owner}.rule takes {parameter}, expected each coefficient by its name")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and name not in ("p", "g"):
            raise TypeError(f"{owner}.rule takes {name!r} by position only, expected it by name")
        if parameter.default is not inspect.Parameter.empty:
            raise TypeError(
                f"{owner}.rule has a default for {name!r}, expected none: what coefficients() returns counts"
            )
    return names[2:]


def results(
    owner: str, returned: Any, states: Sequence[str], renews: Sequence[str], given: Mapping[str, Any]
) -> list[Any]:
    """What a rule has returned: the new ``p``, the states that are kept, the options that it renews.

    Args:
        states, renews: all that the rule has, in its order.
        given: the states that are kept, as the rule got them: what was ``None`` may stay so.

    Raises:
        TypeError: it has returned something else.
    """
    expected = ("p", *states, *renews)

    def refuse(what: str) -> NoReturn:
        several = f"({', '.join(expected)}), one new value for each"
        wanted = several if len(expected) > 1 else "the new p alone"
        raise RuleError(f"{owner}.rule returned {what}, expected {wanted}")

    if issubclass(type(returned), tuple | list):
        new = list(returned)
        if len(expected) == 1 or len(new) != len(expected):
            refuse(f"{len(new)} values")
    else:
        new = [returned]
        if len(expected) > 1:
            refuse("None" if returned is None else "one value")
    named = dict(zip(expected, new, strict=True))
    kept = {name: named[name] for name in ("p", *given)}
    for name, value in kept.items():
        if value is None and name in given and given[name] is None:
            continue  # a state that this parameter does not keep
        if issubclass(type(value), type(None) | tuple | list | dict | str):
            refuse(f"{kind(value)} for {name!r}")
    return [*kept.values(), *new[1 + len(states) :]]
