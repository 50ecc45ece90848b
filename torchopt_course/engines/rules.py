"""A rule as a value: read its signature, bind it to a machine's namespace, tell it from another.

A *rule* is a plain function ``rule(p, g, *states, *coefficients) -> (p, *states)`` that uses nothing but
operators and the module global ``xp``. It is written once. Each engine takes the same code object and
gives it another ``xp``: torch for eager, numpy inside numba for the fused CPU kernel.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

Rule = Callable[..., Any]


class Formula:
    """A rule and the names of what it is called with.

    Args:
        owner: whose rule it is, for error messages.
        rule: the function.
        states: all states that it may keep, in the order of its parameters and results.

    Attributes:
        arguments: the names of its parameters after ``p, g``.
        identity: a digest of what it computes.

    Raises:
        TypeError: the rule's first parameters are not ``p, g, *states``.
    """

    def __init__(self, owner: str, rule: Rule, states: tuple[str, ...]) -> None:
        parameters = tuple(inspect.signature(rule).parameters)
        expected = ("p", "g", *states)
        if parameters[: len(expected)] != expected:
            raise TypeError(
                f"{owner}.rule must start with the parameters ({', '.join(expected)}), the states in the "
                f"order in which they are declared; got ({', '.join(parameters)})"
            )
        self.owner = owner
        self.rule = rule
        self.states = states
        self.arguments = parameters[2:]
        self.identity = identity(rule)
        self._variants: dict[object, Variant] = {}

    def specialise(self, kept: tuple[str, ...], maximize: bool, coefficients: Mapping[str, Any]) -> Variant:
        """Tell apart which coefficients are fixed when a kernel is compiled and which are not.

        ``None`` and booleans are fixed: they say which terms of the formula there are. Numbers are not.

        Raises:
            TypeError: the rule wants a coefficient that ``coefficients`` does not have, or the reverse.
        """
        choices = [item for item in coefficients.items() if item[1] is None or isinstance(item[1], bool)]
        key = (kept, maximize, len(coefficients), *choices)
        variant = self._variants.get(key)
        if variant is None:
            wanted = set(self.arguments) - set(self.states)
            if wanted != set(coefficients):
                raise TypeError(
                    f"{self.owner}.rule takes the coefficients {sorted(wanted)}, "
                    f"but coefficients() returned {sorted(coefficients)}"
                )
            fixed = dict.fromkeys((name for name in self.states if name not in kept), None) | dict(choices)
            variant = self._variants[key] = Variant(self, fixed, maximize)
        return variant


class Variant:
    """A formula with its options fixed: exactly what an engine compiles one kernel for.

    Attributes:
        fixed: the arguments that are known: ``None`` or a boolean.
        states: the states that are kept, in the rule's order.
        scalars: the coefficients that are numbers, in the rule's order.
    """

    def __init__(self, formula: Formula, fixed: Mapping[str, bool | None], maximize: bool) -> None:
        self.formula = formula
        self.fixed = fixed
        self.maximize = maximize
        self.states = tuple(name for name in formula.states if name not in fixed)
        self.scalars = tuple(
            name for name in formula.arguments if name not in fixed and name not in formula.states
        )

    def arguments(self, *, state: str, number: str) -> list[str]:
        """What follows ``p, g`` in a call of the rule, as source text; the templates take a name."""
        return [
            repr(self.fixed[name])
            if name in self.fixed
            else (state if name in self.states else number).format(name)
            for name in self.formula.arguments
        ]

    def results(self, new: str) -> list[str]:
        """What a call of the rule is assigned to, as source text: ``p``, then the states."""
        return [new.format("p"), *(new.format(n) if n in self.states else "_" for n in self.formula.states)]


def bind(
    rule: Rule,
    xp: Any,
    wrap: Callable[[Rule], Rule] = lambda function: function,
    real: Callable[[float], Any] | None = None,
    number: Callable[[Any], Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Rule:
    """Return the rule's own code with another ``xp``, and so for every plain function that it calls.

    Args:
        rule: the function as the user wrote it; it is left as it is.
        xp: the namespace that replaces the module global ``xp``.
        wrap: applied to the new function and its helpers (a compiler's decorator).
        real: applied to the numbers that stand in the code, where a compiler would otherwise
            compute with them in double precision.
        number: applied to the module's own numbers that the code refers to by name.
        extra: more names that the new function finds among its globals.
    """
    return _bind(rule, {**(extra or {}), "xp": xp}, wrap, real, number or real, {})


def _bind(
    rule: Rule,
    given: Mapping[str, Any],
    wrap: Callable[[Rule], Rule],
    real: Callable[[float], Any] | None,
    number: Callable[[Any], Any] | None,
    done: dict[Rule, Rule],
) -> Rule:
    if rule in done:
        return done[rule]
    names = {**rule.__globals__, **given}
    if number is not None:
        numbers = {n: names[n] for n in rule.__code__.co_names if type(names.get(n)) in (int, float)}
        names |= {name: number(value) for name, value in numbers.items()}
    for name, value in _helpers(rule):
        names[name] = _bind(value, given, wrap, real, number, done)
    code = rule.__code__ if real is None else _with_constants(rule.__code__, real)
    function = FunctionType(code, names, rule.__name__, rule.__defaults__, rule.__closure__)
    function.__kwdefaults__ = rule.__kwdefaults__
    done[rule] = wrap(function)
    return done[rule]


def _helpers(rule: Rule) -> Iterator[tuple[str, FunctionType]]:
    """The plain Python functions that a rule calls by their global name."""
    for name in rule.__code__.co_names:
        value = rule.__globals__.get(name)
        if isinstance(value, FunctionType) and value is not rule:
            yield name, value


def _with_constants(code: CodeType, real: Callable[[float], Any]) -> CodeType:
    """Give the numbers in a rule the precision of its arrays, but leave exponents whole: x**2 is x*x."""
    import dis

    instructions = list(dis.get_instructions(code))
    exponents = {
        number.argval
        for number, operation in pairwise(instructions)
        if number.opname.startswith("LOAD_")
        and ("**" in operation.argrepr or operation.opname == "BINARY_POWER")
        and isinstance(number.argval, int)
    }
    return code.replace(
        co_consts=tuple(
            real(value) if type(value) in (int, float) and value not in exponents else value
            for value in code.co_consts
        )
    )


def identity(rule: Rule) -> str:
    """A digest of all that decides what a rule computes: its code, its constants, what it refers to.

    Two functions with the same digest compute the same. It names compiled code on disk, so that a changed
    formula, a changed helper or a changed global number never runs yesterday's machine code.
    """
    digest = hashlib.sha256()
    for part in _parts(rule, set()):
        digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(rule: Rule, seen: set[int]) -> Iterator[object]:
    if id(rule) in seen:
        return
    seen.add(id(rule))
    code = rule.__code__
    yield from (code.co_code, code.co_names, code.co_varnames, code.co_freevars)
    yield from (_plain(constant) for constant in code.co_consts)
    yield rule.__defaults__, sorted((rule.__kwdefaults__ or {}).items())
    yield from (_plain(cell.cell_contents) for cell in rule.__closure__ or ())
    helpers = dict(_helpers(rule))
    for name in sorted({*code.co_names} & {*rule.__globals__}):
        if name in helpers:
            yield name
            yield from _parts(helpers[name], seen)
        elif name != "xp":
            yield name, _plain(rule.__globals__[name])


def _plain(value: object) -> object:
    """A form of a constant whose repr is the same in every process."""
    if isinstance(value, CodeType):
        return value.co_code, [_plain(constant) for constant in value.co_consts], value.co_names
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | tuple | frozenset):
        return type(value).__name__, value
    return getattr(value, "__module__", None), getattr(value, "__qualname__", repr(type(value)))
