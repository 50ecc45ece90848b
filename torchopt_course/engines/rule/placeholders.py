"""What a rule gets in the place of tensors and numbers while it is read: placeholders that tell what is done.

They answer everything that Python can ask of a tensor: with another placeholder, with an error that names the
mistake, or with the news that only torch can run such a rule.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .words import COMPARISONS, OF_NUMBERS, word_of


class RuleError(TypeError):
    """A rule that could not mean the same on every engine."""


class Elsewhere(BaseException):
    """The rule needs whole tensors, or the values of its coefficients: only torch can run it.

    No ``Exception``, lest a rule take it for its own; one that takes all errors for its own is found out.
    """


class Notes(Protocol):
    """Who is told."""

    def say(self, word: str, *operands: Any) -> Any: ...

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...

    def unknown(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...

    def label(self, value: Value) -> str: ...

    def misuse(self, what: str, advice: str = "") -> RuleError: ...

    def elsewhere(self, why: str) -> Elsewhere: ...


class Value:
    """What a rule gets in the place of a tensor or of a number while it is read.

    ``_example`` is a tensor without memory, from which torch tells types and errors, or some number.
    """

    __slots__ = ("_example", "_is_given", "_notes", "_register")

    def __init__(self, notes: Notes, register: str, example: Any, is_given: bool = False) -> None:
        self._notes, self._register, self._example, self._is_given = notes, register, example, is_given

    def __torch_function__(self, *_: object) -> Any:  # torch sees that it is no number; `_Listener` answers
        raise AssertionError("a rule is read under a _Listener")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # An operator between a number of numpy's and one of these.
        said = word_of(getattr(torch, ufunc.__name__, None), inputs, options)
        if method == "__call__" and said and said[0] in OF_NUMBERS | COMPARISONS:
            return self._notes.say(said[0], *said[1])
        if is_per_tensor(self):
            raise self._notes.elsewhere(f"calls numpy's {ufunc.__name__}()")
        raise self._notes.misuse(f"calls numpy's {ufunc.__name__}()")

    def __getattr__(self, name: str) -> Any:
        home = Tensor if is_tensor(self) else float
        attribute = getattr(home, name)
        if home is float or not callable(attribute):
            raise self._notes.elsewhere(f"asks for .{name} of {self._notes.label(self)}")
        return lambda *arguments, **keywords: self._notes.call(attribute, (self, *arguments), keywords)

    def __getitem__(self, key: object) -> Any:
        raise self._notes.elsewhere(f"takes a part of {self._notes.label(self)}, [...]")

    def __len__(self) -> int:
        raise self._notes.elsewhere(f"asks for the length of {self._notes.label(self)}")

    def __setitem__(self, key: object, value: object) -> None:
        raise self._notes.misuse(f"writes into {self._notes.label(self)}, [...] = ...", "use xp.where")

    def __pos__(self) -> Value:
        return self

    def __hash__(self) -> int:
        if is_tensor(self):
            return id(self)
        raise self._notes.elsewhere(f"depends on the value of the coefficient {self._notes.label(self)}")

    def __repr__(self) -> str:
        return f"<{self._notes.label(self)}, while the rule is read: there are no numbers yet>"

    def __str__(self) -> str:
        raise self._notes.elsewhere(f"writes {self._notes.label(self)} as text")

    def __format__(self, how: str) -> str:
        raise self._notes.elsewhere(f"writes {self._notes.label(self)} as text")


def is_tensor(value: Any) -> bool:
    return type(value) is Value and type(value._example) is not float


def is_per_tensor(value: Any) -> bool:
    """Whether it is one number for each tensor, made by a reduction."""
    return is_tensor(value) and shape_of(value) == ()


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of a tensor's example, which tells for each of what it is one number."""
    with torch._C.DisableTorchFunction():  # this is no question of the rule's
        return tuple(value._example.shape)


def is_truth_value(value: Any) -> bool:
    return is_tensor(value) and value._example.dtype == torch.bool


# -- what Python asks of a tensor ------------------------------------------------------------------------


def _operator(word: str, *, reverse: bool = False) -> Callable[[Value, Any], Any]:
    def method(self: Value, other: Any) -> Any:
        return self._notes.say(word, *((other, self) if reverse else (self, other)))

    return method


def _in_place(function: Callable[[Value, Any], Any]) -> Callable[[Value, Any], Any]:
    def method(self: Value, other: Any) -> Any:
        if not is_tensor(self):
            return function(self, other)
        if self._is_given:
            raise self._notes.misuse(
                f"writes into its argument {self._notes.label(self)}, with += or the like",
                "write x = x + y, not x += y",
            )
        new = function(self, other)
        if shape_of(new) != shape_of(self):
            raise self._notes.elsewhere("writes a tensor into a number")
        # The tensor has changed, whatever its names.
        self._register, self._example = new._register, new._example
        return self

    return method


def _word_of_torchs(function: Any, *, reverse: bool = False) -> Callable[[Value, Any], Any]:
    def method(self: Value, other: Any) -> Any:
        if not is_tensor(self) and not is_tensor(other):
            raise self._notes.elsewhere(
                f"takes coefficients alone to {function.__name__}; let coefficients() do it"
            )
        return self._notes.unknown(function, (other, self) if reverse else (self, other), {})

    return method


def _one_operand(word: str) -> Callable[[Value], Any]:
    return lambda self: self._notes.say(word, self)


def _no_number(what: str, advice: str) -> Callable[..., Any]:
    def method(self: Value, *_: object) -> Any:
        if not is_tensor(self):
            raise self._notes.elsewhere(f"depends on the value of the coefficient {self._notes.label(self)}")
        if is_per_tensor(self):
            raise self._notes.elsewhere("decides by a number of a tensor (xp.where would not)")
        raise self._notes.misuse(what, advice)

    return method


for _name_, _word in {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow",
    "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
}.items():  # fmt: skip
    setattr(Value, f"__{_name_}__", _operator(_word))
    setattr(Value, f"__r{_name_}__", _operator(_word, reverse=True))
    setattr(Value, f"__i{_name_}__", _in_place(_operator(_word)))
for _name_ in ("floordiv", "mod", "matmul"):
    _function = getattr(operator, _name_)
    setattr(Value, f"__{_name_}__", _word_of_torchs(_function))
    setattr(Value, f"__r{_name_}__", _word_of_torchs(_function, reverse=True))
    setattr(Value, f"__i{_name_}__", _in_place(_word_of_torchs(_function)))
for _word in COMPARISONS:
    setattr(Value, f"__{_word}__", _operator(_word))
for _name_, _word in {"neg": "neg", "abs": "abs", "invert": "logical_not"}.items():
    setattr(Value, f"__{_name_}__", _one_operand(_word))
Value.__bool__ = _no_number(  # type: ignore[attr-defined]
    "decides by the values of a tensor (if, and, or, not, max(), min())", "xp.where, xp.maximum, xp.minimum"
)
Value.__iter__ = _no_number("goes through the elements of a tensor", "no loop is needed")  # type: ignore[attr-defined]
for _name_ in ("float", "int", "index", "complex", "round"):
    _what = "makes a Python number of a tensor (float(), int(), round(), a function of math)"
    setattr(Value, f"__{_name_}__", _no_number(_what, "xp.sqrt, not math.sqrt"))
