"""Read a function of coefficients: run it once on numbers that tell what is done with them.

What is read is compared with what the function gives; whatever a
:class:`~.number_program.NumberProgram` could not say bit for bit is left to Python, with the reason.
"""

from __future__ import annotations

import dis
import math
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch.overrides import TorchFunctionMode, resolve_name

from .number_program import WORDS, NumberProgram, places
from .number_recorder import Node, Number, Recorder
from .placeholders import Elsewhere
from .reads import Reads, codes
from .rebinding import rebound


def read_coefficients(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    step: float | None = None,
    first: bool | None = None,
) -> NumberProgram | str:
    """The program of a function that gives coefficients, as it goes for these options; or why there is none.

    Args:
        function: ``function(**options)``, with ``step`` and ``first`` where these are given, returns a
            dictionary of numbers, truth values and ``None``.
        options: the options that it asks for: numbers, tuples or lists of numbers, and others, which the
            program is then for.
        step: the number of the step, a float; a number like any other.
        first: whether it is a parameter's first step; the program is for this alone.

    Returns:
        The program, or a reason that goes after the name of the function: "computes with ...".
    """
    if type(function) is not FunctionType:
        return f"is a {type(function).__name__}, no plain function"
    reads = _Reads(function)
    if reads.changeable:
        return reads.changeable
    recorder = Recorder()
    try:
        given = _placeholders(recorder, options, step, first)
        bound = rebound(function, lambda _, value: _replacement(recorder, value))
        with _NoTorch(recorder):
            results = _results(recorder, bound(**given))
    except Elsewhere as why:
        return str(why)
    except Exception as error:
        return recorder.refusal or f"cannot be read: {type(error).__name__}: {error}"
    if recorder.refusal:  # which the function took for an error of its own
        return recorder.refusal
    program = recorder.program(results, reads)
    if not _is_right(program, function, options, step, first):
        return "does not give what it was seen to compute"
    return program


def _is_right(
    program: NumberProgram,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    step: float | None,
    first: bool | None,
) -> bool:
    """Whether a program gives what its function gives, for what it was read with."""
    values = program.values(options, step=step, first=first)
    registers = None if values is None else program.evaluate(values)
    if registers is None:
        return False
    counted = {name: value for name, value in (("step", step), ("first", first)) if value is not None}
    expected, found = function(**options, **counted), program.coefficients(registers)
    return list(expected) == list(found) and all(_same(expected[name], found[name]) for name in found)


def _same(expected: Any, found: Any) -> bool:
    if expected is None or type(expected) is bool:
        return expected is found
    return type(found) is float and float(expected).hex() == found.hex()


def _placeholders(
    recorder: Recorder, options: Mapping[str, Any], step: float | None, first: bool | None
) -> dict[str, Any]:
    """What the function is called with, numbers being replaced."""
    given: dict[str, Any] = {}
    for (name, i), value in places(options, step, first):
        item = recorder.given((name, i), value)
        if i is not None:
            given[name].append(item)
        else:
            given[name] = [] if isinstance(value, type) else item
    return {name: tuple(v) if type(options.get(name)) is tuple else v for name, v in given.items()}


def _results(recorder: Recorder, results: Any) -> dict[str, Node | bool | None]:
    if type(results) is not dict:
        raise recorder.refuse(f"returns a {type(results).__name__}, no dictionary")
    return {
        name: value if value is None or type(value) is bool else recorder.node(value)
        for name, value in results.items()
    }


class _Reads(Reads):
    """What a function reads; some functions of Python's are none that it may call."""

    def _function(self, function: FunctionType) -> None:
        if any(_MATCH_CLASS in code.co_code[::2] for code in codes(function.__code__)):
            self._changes("asks for the class of a number, with match")
        super()._function(function)

    def _value(self, name: str, value: Any) -> None:
        if any(value is own for own in _PYTHONS_OWN):
            self._changes(f"calls {name}(), which does more than one operation after the other")
        home = getattr(value, "__module__", None) or ""
        if callable(value) and home.partition(".")[0] == "torch":
            self._changes(f"calls {name}(), which may say something else tomorrow")
        super()._value(name, value)


_MATCH_CLASS = dis.opmap["MATCH_CLASS"]
# Given numbers alone, all but the last keep more digits.
_PYTHONS_OWN = [sum, math.prod, getattr(math, "sumprod", sum), print]


class _NoTorch(TorchFunctionMode):
    """Torch is not for numbers, and what it gives may be another number each time."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, function: Any, *_: Any) -> Any:
        raise self._recorder.refuse(f"calls {resolve_name(function) or function}()")


# -- what stands behind names while a function is read ---------------------------------------------------

_OF_MATH = {getattr(math, name): name for name in WORDS if name != "abs" and hasattr(math, name)} | {
    math.fabs: "abs"
}
_OF_FINITE_NUMBERS = {math.isfinite: True, math.isinf: False, math.isnan: False}


def _replacement(recorder: Recorder, value: Any) -> Any:
    if value is math:
        return _Math(recorder)
    if value is float:
        return _listening(float, recorder.as_float)
    if value is int:
        return _listening(int, lambda number: recorder.say("trunc", recorder.as_float(number)))
    if type(value) is not BuiltinFunctionType:
        return value
    if value in _OF_FINITE_NUMBERS:
        return _listening(value, lambda _: _OF_FINITE_NUMBERS[value])
    if value is math.log:
        return _listening(value, lambda x, *base: _log(recorder, x, *base))
    if value in _OF_MATH:
        return _listening(value, lambda *x: recorder.say(_OF_MATH[value], *map(recorder.as_float, x)))
    return value


def _listening(function: Callable[..., Any], said: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is written down where it is called with a number that is followed."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        is_followed = any(type(argument) is Number for argument in arguments)
        return (said if is_followed else function)(*arguments, **keywords)

    return call


def _log(recorder: Recorder, x: Any, *base: Any) -> Any:
    """Python's ``math.log`` to a base is a quotient."""
    logs = [
        recorder.say("log", recorder.as_float(number)) if type(number) is Number else math.log(number)
        for number in (x, *base)
    ]
    return recorder.say("div", *logs) if base else logs[0]


class _Math:
    """The module ``math``."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return _replacement(self._recorder, getattr(math, name))
