"""What a rule may say: the words that every engine knows, how torch spells them, what they mean for tensors.

Each is a function of one number at a time. What is not here (sums, norms, sorting, ...) may mean something
else for a number than for a tensor: no kernel gets to see it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


def _filled(like: Tensor, number: Any) -> Any:
    return torch.zeros_like(like) + number


# What a word means for tensors and Python's numbers.
TENSORS: dict[str, Function] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "pow": operator.pow, "neg": operator.neg,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne,
    "logical_and": operator.and_, "logical_or": operator.or_, "logical_xor": operator.xor,
    "logical_not": operator.invert,
    "abs": torch.abs, "sign": torch.sign, "square": torch.square, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal, "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "floor": torch.floor, "ceil": torch.ceil,
    "maximum": torch.maximum, "minimum": torch.minimum, "clamp": torch.clamp, "where": torch.where,
    "fill": _filled,  # of a tensor: one like it, full of a number
    "real": Tensor.type_as,  # true and false as 1 and 0, in the precision of another tensor
}  # fmt: skip
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
LOGICAL = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"})
# What a rule may do with its coefficients alone: Python does it, once for all elements.
OF_NUMBERS = frozenset({"add", "sub", "mul", "div", "pow", "neg", "abs"})

_ALSO = {
    "add": "__add__", "sub": "subtract __sub__", "mul": "multiply __mul__",
    "div": "divide true_divide __truediv__", "pow": "__pow__", "neg": "negative __neg__",
    "lt": "less __lt__", "le": "less_equal __le__", "gt": "greater __gt__", "ge": "greater_equal __ge__",
    "eq": "__eq__", "ne": "not_equal __ne__",
    "logical_and": "__and__", "logical_or": "__or__", "logical_xor": "__xor__", "logical_not": "__invert__",
    "abs": "absolute __abs__", "sign": "sgn", "clamp": "clip",
}  # fmt: skip
_UNARY = {
    "neg", "logical_not", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos",
    "tanh", "sigmoid", "floor", "ceil",
}  # fmt: skip
# What torch calls the operands, for a rule that gives them by name.
_OPERANDS = {
    **dict.fromkeys(_UNARY, ("input",)),
    "pow": ("input", "exponent"),
    "clamp": ("input", "min", "max"),
    "where": ("condition", "input", "other"),
}


def _spellings() -> dict[Any, str]:
    known = {torch.special.expit: "sigmoid"}
    for word in TENSORS:
        for name in (word, *_ALSO.get(word, "").split()):
            # x.where(condition, y) has its operands in another order.
            homes = (torch,) if word == "where" else (torch, Tensor)
            known |= {getattr(home, name): word for home in homes if hasattr(home, name)}
    return known


_SPELLINGS = _spellings()
_LIKE: dict[Any, tuple[float, ...]] = {torch.zeros_like: (0.0,), torch.ones_like: (1.0,), torch.full_like: ()}


def word_of(
    function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...]] | None:
    """The word that a call of torch stands for, with its operands; ``None`` if there is no word for it."""
    if function in _LIKE and len(arguments) == 2 - len(_LIKE[function]) and not keywords:
        return "fill", (*arguments, *_LIKE[function])
    word = _SPELLINGS.get(function, "")
    names = _OPERANDS.get(word, ("input", "other"))
    operands = dict(zip(names, arguments, strict=False)) | {**keywords}
    if word == "clamp":  # one bound may be missing
        given = {name: value for name, value in operands.items() if value is not None}
        operands = {"min": -torch.inf, "max": torch.inf} | given
    if not word or len(arguments) > len(names) or operands.keys() != set(names):
        return None  # out=, alpha=, dtype=, where(condition)
    return word, tuple(operands[name] for name in names)


Say = Callable[..., Any]
# Powers that torch does not compute as powers.
POWERS: dict[float, Callable[[Say, Any], Any]] = {
    2: lambda say, x: say("mul", x, x),
    3: lambda say, x: say("mul", say("mul", x, x), x),
    0.5: lambda say, x: say("sqrt", x),
    -0.5: lambda say, x: say("rsqrt", x),
    -1: lambda say, x: say("reciprocal", x),
    -2: lambda say, x: say("reciprocal", say("mul", x, x)),
}
