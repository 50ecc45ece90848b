"""A rule and transforms, composed into one rule: a plain function, that engines read like any other.

Transforms act in the order in which they are listed: on the gradient, then the rule, then on the new weights,
as in optax's ``chain``. A composed function refers to functions and names alone, never to lists or objects:
what might change without notice could not be read once and for all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .transform import Transform

Function = Callable[..., Any]
# What a function calls an argument, and what it is called in the composed rule.
Names = tuple[tuple[str, str], ...]
_FIRST = {"before": ("p", "g"), "after": ("p", "new", "g")}


class Formula(NamedTuple):
    """What a class with a rule declares, see :class:`~torchopt_course.ElementwiseOptimizer`."""

    rule: Function
    coefficients: Function
    states: tuple[str, ...]
    optional_states: Mapping[str, str]
    renews: tuple[str, ...]


def composed(owner: str, formula: Formula, transforms: Sequence[Transform], shrink: str | None) -> Formula:
    """The formula with transforms around it.

    Args:
        owner: whose formula it is, for error messages.
        formula, transforms: what is composed.
        shrink: the coefficient by which the rule multiplies the parameter before all else (decoupled weight
            decay), if it has one; ``None`` in its place leaves that out. It is done before transforms look at
            how the weights change.

    Raises:
        TypeError: a transform that is none, stands there twice, or whose functions cannot be called so;
            a state that two have.
    """
    _refuse_mistakes(owner, formula, transforms)
    own_states = (*formula.states, *formula.optional_states)
    own_arguments = tuple(_parameters(formula.rule))[2:]
    states = (*formula.states, *(name for each in transforms for name in each.states))
    optional = {**formula.optional_states}
    before, after, coefficients = _no_change, _no_change_after, _called(formula.coefficients)
    numbers: list[str] = []
    needed = [*_parameters(formula.coefficients)]
    for transform in transforms:
        cls = type(transform)
        optional |= transform.optional_states
        kept = (*transform.states, *transform.optional_states)
        own = {name: name for name in kept}
        functions = {kind: each for kind in _FIRST if (each := getattr(cls, kind)) is not None}
        for kind, function in functions.items():
            given = list(_parameters(function))[len(_FIRST[kind]) :]
            names = tuple((name, own.get(name, f"{transform.name}_{name}")) for name in given)
            numbers += [key for name, key in names if name not in own and key not in numbers]
            returned = kept if kind == list(functions)[-1] else ()
            if kind == "before":
                before = _with_before(before, function, names, returned)
            else:
                after = _with_after(after, function, names, returned)
        if cls.coefficients is not None:
            function, needs = cls.coefficients, tuple(_parameters(cls.coefficients))
        else:
            asked = {name for each in functions.values() for name in _parameters(each)}
            function, needs = _as_they_are, tuple(name for name in transform.options if name in asked)
        coefficients = _with_coefficients(coefficients, function, needs, transform.name)
        needed += [name for name in needs if name not in needed]
    of_rule = own_states, formula.renews
    rule = _rule(before, formula.rule, own_arguments, of_rule, shrink, after, (*states, *optional))
    arguments = [name for name in own_arguments if name not in own_states]
    _call_with(rule, ("p", "g", *states, *optional, *arguments, *numbers))
    _call_with(coefficients, needed)
    return Formula(rule, coefficients, states, optional, formula.renews)


def _rule(
    before: Function,
    rule: Function,
    arguments: tuple[str, ...],
    returned: tuple[tuple[str, ...], tuple[str, ...]],
    shrink: str | None,
    after: Function,
    states: tuple[str, ...],
) -> Function:
    own, renews = returned

    def composed_rule(p: Any, g: Any, **values: Any) -> Any:
        g, values = before(p, g, values)
        if shrink is not None and values[shrink] is not None:
            p = values[shrink] * p
            values = {**values, shrink: None}
        found = rule(p, g, **{name: values[name] for name in arguments})
        new, values = _taken(found, (*own, *renews), values)
        new, values = after(p, new, g, values)
        return (new, *(values[name] for name in (*states, *renews))) if states or renews else new

    return composed_rule


def _no_change(p: Any, g: Any, values: dict[str, Any]) -> Any:
    return g, values


def _no_change_after(p: Any, new: Any, g: Any, values: dict[str, Any]) -> Any:
    return new, values


def _with_before(rest: Function, function: Function, names: Names, states: tuple[str, ...]) -> Function:
    def before(p: Any, g: Any, values: dict[str, Any]) -> Any:
        g, values = rest(p, g, values)
        found = function(p, g, **{name: values[key] for name, key in names})
        return _taken(found, states, values)

    return before


def _with_after(rest: Function, function: Function, names: Names, states: tuple[str, ...]) -> Function:
    def after(p: Any, new: Any, g: Any, values: dict[str, Any]) -> Any:
        new, values = rest(p, new, g, values)
        found = function(p, new, g, **{name: values[key] for name, key in names})
        return _taken(found, states, values)

    return after


def _taken(found: Any, states: tuple[str, ...], values: dict[str, Any]) -> Any:
    """A function's value, and all values with its new states among them."""
    if not states:
        return found, values
    value, *new = found
    if len(new) != len(states):
        raise TypeError(f"a rule or transform returned {1 + len(new)} values, expected one and {states}")
    return value, {**values, **dict(zip(states, new, strict=True))}


# -- coefficients ------------------------------------------------------------------------------------------


def _called(function: Function) -> Function:
    needs = tuple(_parameters(function))

    def coefficients(**options: Any) -> Any:
        return function(**{name: options[name] for name in needs})

    return coefficients


def _as_they_are(**options: Any) -> dict[str, Any]:
    return options


def _with_coefficients(rest: Function, function: Function, needs: tuple[str, ...], owner: str) -> Function:
    def coefficients(**options: Any) -> dict[str, Any]:
        own = function(**{name: options[name] for name in needs})
        return {**rest(**options), **{f"{owner}_{name}": value for name, value in own.items()}}

    return coefficients


def _call_with(function: Function, names: Sequence[str]) -> None:
    """Say what a function that takes anything is to be called with."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


# -- mistakes ----------------------------------------------------------------------------------------------


def _refuse_mistakes(owner: str, formula: Formula, transforms: Sequence[Transform]) -> None:
    names: set[str] = set()
    states = dict.fromkeys((*formula.states, *formula.optional_states), owner)
    for transform in transforms:
        if transform.name in names:
            raise TypeError(
                f"{owner} has the transform {transform.name} twice, and options go by their names"
            )
        names.add(transform.name)
        if type(transform).prepares_gradients and (earlier := _with_gradients(transforms, transform)):
            raise TypeError(
                f"{earlier} is listed before {transform.name}, which sees gradients first: list it first"
            )
        cls = type(transform)
        acts_outside = cls.skips_nonfinite or cls.prepares_gradients
        if cls.before is None and cls.after is None and not acts_outside:
            raise TypeError(f"the transform {transform.name} has neither before() nor after()")
        for state in (*transform.states, *transform.optional_states):
            if state in states:
                raise TypeError(
                    f"{transform.name} keeps a state {state!r}, but {states[state]} has one of that name"
                )
            states[state] = transform.name
        for kind, first in _FIRST.items():
            if getattr(cls, kind) is not None:
                _refuse_odd_function(transform, kind, first)
    for transform in transforms:
        function = type(transform).coefficients
        if states or function is None or "first" not in _parameters(function):
            continue
        raise TypeError(
            f"{transform.name}.coefficients asks for 'first', but neither it nor {owner} has states, by "
            "which the first step of a parameter is known: ask for 'step'"
        )


def _with_gradients(transforms: Sequence[Transform], last: Transform) -> str:
    """The first transform of the gradient that is listed before another."""
    earlier = transforms[: [*map(id, transforms)].index(id(last))]
    return next((each.name for each in earlier if type(each).before is not None), "")


def _refuse_odd_function(transform: Transform, kind: str, first: tuple[str, ...]) -> None:
    function, where = inspect.getattr_static(type(transform), kind), f"{transform.name}.{kind}"
    kept = (*transform.states, *transform.optional_states)
    if not isinstance(function, staticmethod):
        raise TypeError(f"{where} is a {type(function).__name__}, expected a @staticmethod")
    parameters = _parameters(function.__func__)
    expected = (*first, *kept)
    if tuple(parameters)[: len(expected)] != expected:
        raise TypeError(
            f"{where} takes ({', '.join(parameters)}), expected to begin with ({', '.join(expected)})"
        )
    for parameter in parameters.values():
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise TypeError(f"{where} takes {parameter}, expected each by its name")
        if parameter.default is not inspect.Parameter.empty:
            raise TypeError(
                f"{where} has a default for {parameter.name!r}, expected none: defaults are options"
            )


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
