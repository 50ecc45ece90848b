"""What a rule has done so far, while it is read: the notes that its placeholders write, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import resolve_name
from torch.utils._pytree import tree_leaves, tree_map

from .placeholders import Elsewhere, RuleError, Value, is_per_tensor, is_tensor, is_truth_value
from .pointwise import Pointwise
from .program import NUMBER, STATE, Line
from .words import (
    COMPOSED,
    LINES,
    LOGICAL,
    OF_NUMBERS,
    OF_TRUTHS,
    OVER,
    POWERS,
    REDUCTIONS,
    REDUCTIONS_OF_LINES,
    TENSORS,
    TRUTHS,
    word_of,
    word_of_lines,
)

# What stands for a number while a rule is read: none that a formula may treat in a way of its own.
SOME_NUMBER = 0.7310585786300049
_SHAPE = (2, 3)
# For each of what a value is one number, by the shape of its example.
_PER = {_SHAPE: "element", (2, 1): "row", (1, 3): "column", (): "tensor"}
_ADVICE = "a rule sees one number at a time; use xp.NAME"


def _unheard(method: Callable[..., Any]) -> Callable[..., Any]:
    """What the reader itself asks of torch is no part of the rule."""

    @wraps(method)
    def inner(*arguments: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return method(*arguments)

    return inner


class RuleNotes:
    """What a rule has done so far."""

    def __init__(self, owner: str, renews: Sequence[str]) -> None:
        self.owner, self._renews = owner, renews
        self.lines: list[Line] = []
        self.stranger = ""  # the first elementwise function without a word
        self.refusal = ""  # the first thing that was refused, which the rule may have taken for its own error
        self._over = OVER[0]  # what the next reduction is of
        self._method = ""  # the first that was called as a method, with `over`
        self.p = self.given("p")

    @property
    def reduces(self) -> str:
        """What it does that is not elementwise, if anything: a number of a whole tensor, or of each row."""
        for line in self.lines:
            if line.word in REDUCTIONS:
                return f"makes a number of a whole tensor, by {line.word}()"
            if line.word in REDUCTIONS_OF_LINES:
                over, _, word = line.word.partition("_")
                return f"makes a number of each {over}, by {word}()"
        return ""

    def refuse_alone(self, why: str) -> None:
        """Refuse to let torch run the rule as it stands, on one tensor after the other, if it needs more.

        Raises:
            TypeError: it needs several tensors, or what torch's methods do not take.
        """
        over = next((line.over for line in self.lines if line.over != OVER[0]), None)
        if over or self._renews:
            what = f"makes a number of several tensors, with over={over!r}" if over else "renews options"
            raise RuleError(
                f"{self.owner}.rule {what}, but {why}: torch, which would run it as it stands, sees one "
                "tensor at a time; use what is on the list for kernels, and xp.where for decisions"
            )
        if self._method:
            raise RuleError(
                f"{self.owner}.rule calls {self._method}, but {why}: torch, which would run it as it stands, "
                f"has no such method; write {self._method.replace('x.', 'xp.').replace('(', '(x, ')}"
            )

    def given(self, register: str) -> Value:
        return Value(self, register, torch.empty(_SHAPE, dtype=torch.float32, device="meta"), is_given=True)

    @_unheard
    def say(self, word: str, *operands: Any) -> Any:
        """``word(*operands)``, written down."""
        operands = tuple(map(_plain, operands))
        for operand in operands:
            if operand is None or type(operand) is str:
                raise self.misuse(f"computes with {operand!r}", "choose with: if x is not None")
        if any(type(operand) not in (Value, int, float, bool) for operand in operands):
            return self.unknown(TENSORS[word], operands, {})
        over = self._over if word in REDUCTIONS else OVER[0]
        if over in LINES:
            word = word_of_lines(word, over)
        if word == "clamp" and any(map(is_tensor, operands[1:])):
            return self._between(*operands)
        if not any(map(is_tensor, operands)):
            if word not in OF_NUMBERS:
                raise self.elsewhere(f"takes coefficients alone to {word}(); let coefficients() do it")
            return self._write(word, operands, SOME_NUMBER)
        try:
            example = TENSORS[word](*map(_example, operands))
        except (TypeError, RuntimeError) as error:
            raise self.misuse(f"makes an error, in {word}(): {str(error).splitlines()[0]}") from error
        is_truth = example.dtype == torch.bool
        example = example if is_truth else example.to(torch.float32)
        if is_truth and word in OF_TRUTHS:
            return self.say(OF_TRUTHS[word], *operands)
        if is_truth and word not in TRUTHS:
            return self.unknown(TENSORS[word], operands, {})
        if word in REDUCTIONS | REDUCTIONS_OF_LINES:
            self._refuse_numbers(word, over, operands[0])
        if word not in LOGICAL:
            condition = operands[:1] if word == "where" else ()
            operands = (*condition, *map(self._as_real, operands[len(condition) :]))
        elif not all(map(is_truth_value, operands)):
            return self.unknown(TENSORS[word], operands, {})
        if word == "where" and not any(map(is_tensor, operands[1:])):
            # Of two numbers torch would make single precision, whatever the parameter has.
            like = self.p if example.shape == _SHAPE else self._as_real(operands[0])
            operands = (*operands[:2], self.say("fill", like, operands[2]))
        if word == "pow" and type(operands[1]) is not Value and operands[1] in POWERS:
            return POWERS[operands[1]](self.say, operands[0])
        return self._write(word, operands, example)

    def _write(self, word: str, operands: tuple[Any, ...], example: Any) -> Value:
        out = Value(self, f"v{len(self.lines)}", example)
        names = tuple(operand._register if type(operand) is Value else operand for operand in operands)
        of_numbers = type(example) is float
        over = self._over if word in REDUCTIONS else OVER[0]
        per = "element" if of_numbers else _PER[tuple(example.shape)]
        self.lines.append(Line(out._register, word, names, of_numbers, per, over))
        return out

    def _refuse_numbers(self, word: str, over: str, operand: Any) -> None:
        """Refuse to reduce what has been reduced, where nobody would say what of."""
        per = _PER[tuple(operand._example.shape)]
        if per == "tensor" and over == OVER[0]:
            raise self.elsewhere(f"takes {word}() of one number")
        # Of how many numbers a mean over several tensors is, their elements tell.
        if per == "tensor" or (per != "element" and (over in LINES or (over != OVER[0] and word == "mean"))):
            raise self.misuse(
                f"takes {word.removeprefix(f'{over}_')}(over={over!r}) of what is one number for each {per} "
                "already",
                "0 * p + x is a tensor that is full of it",
            )

    def _between(self, x: Any, low: Any, high: Any) -> Any:
        """A clamp by tensors, or by numbers that were made of one."""
        for word, bound in (("maximum", low), ("minimum", high)):
            if is_tensor(bound):
                x = self.say(word, x, bound)
            elif type(bound) is Value or abs(bound) != torch.inf:
                x = self.say("clamp", x, *((bound, torch.inf) if word == "maximum" else (-torch.inf, bound)))
        return x

    def _as_real(self, operand: Any) -> Any:
        if not is_truth_value(operand):
            return operand
        example = torch.empty(operand._example.shape, dtype=torch.float32, device="meta")
        return self._write("real", (operand, self.p), example)

    def call(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A call of one of torch's functions."""
        if not any(type(leaf) is Value for leaf in tree_leaves((arguments, keywords))):
            raise self.elsewhere(f"calls {_name(function)}() on nothing that it was given")
        if "over" in keywords:
            return self._call_over(function, arguments, keywords)
        said = word_of(function, arguments, keywords)
        if not said:
            return self.unknown(function, arguments, keywords)
        word, operands = said
        return self._said(word, operands)

    def _call_over(self, function: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """A reduction that says of what."""
        over, name = keywords["over"], _name(function).rpartition(".")[2]
        if over not in LINES + OVER:
            raise self._mistake(
                f"calls {name}() with over={over!r}, expected one of {', '.join(map(repr, (*LINES, *OVER)))}"
            )
        rest = {key: value for key, value in keywords.items() if key != "over"}
        said = word_of(function, arguments, rest)
        if not said or said[0] not in REDUCTIONS | _NORMS:
            raise self._mistake(
                f"calls {name}() with over={over!r}, and with other arguments than the "
                "tensor (and a norm's order) or of a function that makes no number of a whole tensor"
            )
        if function is getattr(Tensor, name, None):
            self._method = self._method or f"x.{name}(over={over!r})"
        self._over = over
        try:
            return self._said(*said)
        finally:
            self._over = OVER[0]

    def _said(self, word: str, operands: tuple[Any, ...]) -> Any:
        return COMPOSED[word](self.say, *operands) if word in COMPOSED else self.say(word, *operands)

    @_unheard
    def unknown(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A function that is not on the list: torch says whether it is one of one number at a time."""
        name = _name(function)
        if name.rpartition(".")[2] in _TO_PYTHON:
            if any(map(is_per_tensor, arguments)):
                raise self.elsewhere(f"calls {name}()")
            raise self.misuse(f"calls {name}()")
        arguments, keywords = tree_map(_example, (arguments, keywords))
        given = [leaf for leaf in tree_leaves((arguments, keywords)) if type(leaf) is Tensor]
        before = [tensor._version for tensor in given]
        pointwise = Pointwise()
        try:
            with pointwise:
                result = function(*arguments, **keywords)
        except Exception as error:
            raise self.elsewhere(f"calls {name}(), which is not on the list for kernels") from error
        if [tensor._version for tensor in given] != before:
            raise self.misuse(f"writes into a tensor, with {name}()", "write x = x + y, not x.add_(y)")
        tensors = tree_leaves(result)
        if pointwise.failed or not all(type(t) is Tensor and t.shape in _PER for t in tensors):
            raise self.elsewhere(f"calls {name}(), which is not elementwise")
        self.stranger = self.stranger or f"calls {name}(), which is not on the list for kernels"
        return tree_map(lambda tensor: Value(self, "?", tensor), result)

    @_unheard
    def result(self, value: Any) -> str:
        """The register of a result."""
        value = _plain(value)
        if is_tensor(value) and (shape := tuple(value._example.shape)) != _SHAPE:
            of = "of a whole tensor" if shape == () else f"for each {_PER[shape]}"
            raise RuleError(
                f"{self.owner}.rule returned one number {of}, expected tensors like the parameter: 0 * p + x "
                "is one that is full of it"
            )
        if not is_tensor(value) and type(value) in (Value, int, float, bool):
            value = self.say("fill", self.p, value)
        if not is_tensor(value):
            raise self.elsewhere(f"returns a {type(value).__name__} that it was not given")
        register: str = self._as_real(value)._register
        return register

    @_unheard
    def option(self, name: str, value: Any) -> str:
        """The register of an option that the rule renews."""
        value = _plain(value)
        if type(value) in (int, float):
            value = self._write("add", (value, 0.0), SOME_NUMBER)
        if type(value) is not Value or (is_tensor(value) and not is_per_tensor(value)):
            found = "a tensor" if type(value) is Value else f"a {type(value).__name__}"
            raise RuleError(f"{self.owner}.rule renewed {name!r} with {found}, expected one number")
        register: str = value._register
        return register

    def label(self, value: Value) -> str:
        named = value._register.removeprefix(STATE.format("")).removeprefix(NUMBER.format(""))
        return named if value._is_given or not is_tensor(value) else "a tensor"

    def misuse(self, what: str, advice: str = "") -> RuleError:
        return self._mistake(f"{what}: {_ADVICE}" + (f" ({advice})" if advice else ""))

    def _mistake(self, what: str) -> RuleError:
        self.refusal = self.refusal or what
        return RuleError(f"{self.owner}.rule {what}")

    def elsewhere(self, why: str) -> Elsewhere:
        self.refusal = self.refusal or why
        return Elsewhere(why)


def _plain(operand: Any) -> Any:
    """Numbers of numpy's as Python's."""
    is_numpys = type(operand) is not Value and isinstance(operand, np.number | np.bool_)
    return operand.item() if is_numpys else operand


def _example(operand: Any) -> Any:
    return operand._example if type(operand) is Value else operand


def _name(function: Any) -> str:
    return str(resolve_name(function) or getattr(function, "__name__", function))


_NORMS = {"norm_1", "norm_inf"}
_TO_PYTHON = ("item", "tolist", "numpy", "__array__")
