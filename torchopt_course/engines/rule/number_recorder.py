"""Numbers that tell what is done with them, while a function of coefficients is read.

Each knows its value, so that whatever the function decides (``if``, ``or``, ``max()``) is decided as it would
be; the decision is written down. What a :class:`~.number_program.NumberProgram` could not say is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .number_program import (
    COMPARISONS,
    MOST_EXACT,
    WORDS,
    Condition,
    NumberProgram,
    Operation,
    Place,
    is_exact,
)
from .placeholders import Elsewhere
from .reads import Reads

Node = tuple[str, int]  # a register, as long as the number of constants is not known


class Recorder:
    """What has been done with numbers so far.

    Attributes:
        refusal: the first thing that no program could say.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self._inputs: list[Place] = []
        self._types: list[type] = []
        self._fixed: dict[Place, Any] = {}
        self._constants: dict[str, float] = {}
        self._operations: list[tuple[str, list[Node]]] = []
        self._conditions: dict[tuple[str, Node, Node], bool] = {}

    def refuse(self, why: str) -> Elsewhere:
        self.refusal = self.refusal or why
        return Elsewhere(self.refusal)

    def given(self, place: Place, value: Any) -> Any:
        """An option: a number to follow, or what the program is then for."""
        if type(value) in (int, float):
            if not is_exact(value) or not math.isfinite(value):
                raise self.refuse(f"is given {place[0]}={value!r}, no finite number of double precision")
            self._inputs.append(place)
            self._types.append(type(value))
            return Number(self, ("input", len(self._inputs) - 1), value)
        if value is None or type(value) in (bool, str, type):
            self._fixed[place] = value
            return value
        raise self.refuse(f"is given {place[0]}, a {type(value).__name__}")

    def say(self, word: str, *operands: Any) -> Number:
        """``word(*operands)`` of numbers of which one at least is followed, written down."""
        nodes = [self.node(operand) for operand in operands]
        values = [value_of(operand) for operand in operands]
        whole = all(isinstance(value, int) for value in values)
        if word == "pow" and whole:
            raise self.refuse("takes a whole number to the power of another")
        try:
            value = WORDS[word](*values)
        except (ArithmeticError, ValueError) as error:
            raise self.refuse(f"makes an error: {error}") from error
        if isinstance(value, complex) or not is_exact(value) or not math.isfinite(value):
            raise self.refuse(f"computes {value!r}, no finite number of double precision")
        result = self._write(word, nodes, value)
        if type(value) is int and word not in ("add", "sub", "abs"):
            # Among Python's whole numbers there is no -0.
            result = self._write("add", [result._node, self.node(0.0)], value)
        if type(value) is int and whole:
            self.compare("lt", result, MOST_EXACT - 1)
            self.compare("gt", result, 1 - MOST_EXACT)
        return result

    def compare(self, word: str, a: Any, b: Any) -> bool:
        """``a < b`` and the like, as it is at present."""
        nodes = self.node(a), self.node(b)
        holds = COMPARISONS[word](value_of(a), value_of(b))
        self._conditions[word, nodes[0], nodes[1]] = holds
        return holds

    def as_float(self, number: Any) -> Any:
        return Number(self, number._node, float(number._value)) if type(number) is Number else float(number)

    def node(self, number: Any) -> Node:
        """The register of a number; a new one, if it is a constant that is not there yet."""
        if type(number) is Number:
            return number._node
        if type(number) not in (bool, int, float) or not is_exact(number):
            raise self.refuse(f"computes with or returns {_said(number)}, no number of double precision")
        constant = float(number)
        self._constants.setdefault(constant.hex(), constant)
        return "constant", list(self._constants).index(constant.hex())

    def program(self, results: Mapping[str, Node | bool | None], reads: Reads) -> NumberProgram:
        """All that was written down."""
        first = {
            "input": 0,
            "constant": len(self._inputs),
            "operation": len(self._inputs) + len(self._constants),
        }

        def register(node: Node) -> int:
            return first[node[0]] + node[1]

        return NumberProgram(
            inputs=tuple(self._inputs),
            types=tuple(self._types),
            constants=tuple(self._constants.values()),
            operations=tuple(Operation(word, tuple(map(register, of))) for word, of in self._operations),
            conditions=tuple(
                Condition(word, (register(a), register(b)), holds)
                for (word, a, b), holds in self._conditions.items()
            ),
            results={
                name: register(value) if type(value) is tuple else value  # type: ignore[misc]
                for name, value in results.items()
            },
            fixed=self._fixed,
            reads=reads,
        )

    def _write(self, word: str, nodes: list[Node], value: float) -> Number:
        self._operations.append((word, nodes))
        return Number(self, ("operation", len(self._operations) - 1), value)


class Number:
    """What a function gets in the place of a number while it is read."""

    __slots__ = ("_node", "_recorder", "_value")

    def __init__(self, recorder: Recorder, node: Node, value: float) -> None:
        self._recorder, self._node, self._value = recorder, node, value

    def __bool__(self) -> bool:
        return self._recorder.compare("ne", self, 0.0)

    def __pos__(self) -> Number:
        return self

    def __neg__(self) -> Number:
        return self._recorder.say("neg", self)

    def __abs__(self) -> Number:
        return self._recorder.say("abs", self)

    def __getattribute__(self, name: str) -> Any:
        # Operators do not come here; `isinstance()` and `case float():` do, with `__class__`.
        if name in Number.__slots__:
            return object.__getattribute__(self, name)
        raise self._recorder.refuse(f"asks for .{name} of a number")


def value_of(number: Any) -> Any:
    return number._value if type(number) is Number else number


def _said(value: Any) -> str:
    return f"the {type(value).__name__} {value!r}" if isinstance(value, int) else f"a {type(value).__name__}"


def _operator(word: str, *, reverse: bool = False) -> Callable[..., Any]:
    def method(self: Number, other: Any, *modulus: Any) -> Any:
        if modulus:
            raise self._recorder.refuse("calls pow() with a modulus")
        return self._recorder.say(word, *((other, self) if reverse else (self, other)))

    return method


def _comparison(word: str) -> Callable[[Number, Any], bool]:
    def method(self: Number, other: Any) -> bool:
        if word in ("eq", "ne") and (other is None or type(other) is str):
            return word == "ne"
        return self._recorder.compare(word, self, other)

    return method


def _refused(name: str) -> Callable[..., Any]:
    def method(self: Number, *_: Any, **__: Any) -> Any:
        raise self._recorder.refuse(f"asks a number for {name}")

    return method


_ARITHMETIC = {"truediv": "div"} | {name: name for name in ("add", "sub", "mul", "pow", "mod", "floordiv")}
for _name, _word in _ARITHMETIC.items():
    setattr(Number, f"__{_name}__", _operator(_word))
    setattr(Number, f"__r{_name}__", _operator(_word, reverse=True))
for _word in COMPARISONS:
    setattr(Number, f"__{_word}__", _comparison(_word))
# All else that Python, numpy and torch may ask of a number.
_REFUSED = """
float int index complex round trunc floor ceil str repr format hash iter len getitem contains divmod rdivmod
matmul rmatmul lshift rlshift rshift rrshift and rand or ror xor rxor invert
array array_ufunc array_function torch_function
"""
for _name in _REFUSED.split():
    setattr(Number, f"__{_name}__", _refused(f"__{_name}__"))
