"""What a rule may say: the words that every engine knows, how torch spells them, what they mean for tensors.

Each is a function of one number at a time, but for the reductions, which make one number of a whole tensor,
or of each of its rows or columns. What is not here (sorting, products of matrices, ...) means something else
for a number than for a tensor: no kernel gets to see it.
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


def _extreme(function: Function, of_nothing: float) -> Function:
    """torch has none for an empty tensor, of which no element asks for it either, nor for an empty shard."""
    return lambda x, *dim: function(_replicated(x), *dim) if x.numel() else torch.sum(x, *dim) + of_nothing


def _replicated(x: Any) -> Any:
    """A ``DTensor`` of which each process has all."""
    if not hasattr(x, "redistribute"):
        return x
    from torch.distributed.tensor import Replicate

    return x.redistribute(placements=[Replicate()] * x.device_mesh.ndim)


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
    "sum": torch.sum, "mean": torch.mean, "norm": torch.linalg.vector_norm,
    "amax": _extreme(torch.amax, -torch.inf), "amin": _extreme(torch.amin, torch.inf),
    "any": torch.any, "all": torch.all, "count_nonzero": lambda x: torch.sum(x != 0).to(x.dtype),
}  # fmt: skip
# What makes one number of a tensor.
REDUCTIONS = frozenset({"sum", "mean", "norm", "amax", "amin", "any", "all", "count_nonzero"})
# Of what they make one number: the parameter's own tensor, all of its group, all that the optimizer steps.
OVER = ("tensor", "group", "all")
# Or one number each: a row is what has the same index in the first dimension (all weights of one output), a
# column what differs in that alone. A vector is one row, and so is a single number.
LINES = ("row", "column")


def word_of_lines(word: str, over: str) -> str:
    """The word for a reduction over each row or each column."""
    return f"{over}_{word}"


def _of_lines(function: Function, over: str) -> Function:
    """A reduction ``function(x, dimensions, keepdim)`` over each row or each column of a tensor."""

    def reduced(x: Tensor) -> Any:
        if over == "row":
            return function(x, tuple(range(1, x.dim())) or (0,), True)
        return function(x, (0,), True) if x.dim() > 1 else function(x.unsqueeze(0), (0,), False)

    return reduced


_OF_LINES: dict[str, Function] = {
    "sum": torch.sum, "mean": torch.mean, "any": torch.any, "all": torch.all,
    "norm": lambda x, dim, keepdim: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim),
    "amax": _extreme(torch.amax, -torch.inf), "amin": _extreme(torch.amin, torch.inf),
    "count_nonzero": lambda x, *dim: torch.sum(x != 0, *dim).to(x.dtype),
}  # fmt: skip
TENSORS |= {
    word_of_lines(word, over): _of_lines(function, over)
    for over in LINES
    for word, function in _OF_LINES.items()
}
REDUCTIONS_OF_LINES = frozenset(word_of_lines(word, over) for word in REDUCTIONS for over in LINES)
REDUCTIONS_OF_TORCH = ("sum", "mean", "norm", "amax", "amin", "max", "min", "any", "all", "count_nonzero")
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
LOGICAL = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"})
# What torch makes of true and false where one counts.
OF_TRUTHS = {"add": "logical_or", "mul": "logical_and", "maximum": "logical_or", "minimum": "logical_and"}
# What gives true or false.
TRUTHS = (
    LOGICAL
    | COMPARISONS
    | {"any", "all"}
    | {word_of_lines(w, over) for w in ("any", "all") for over in LINES}
)
# What a rule may do with its coefficients alone: Python does it, once for all elements.
OF_NUMBERS = frozenset({"add", "sub", "mul", "div", "pow", "neg", "abs"})

Say = Callable[..., Any]
# What is said with other words.
COMPOSED: dict[str, Callable[..., Any]] = {
    "isfinite": lambda say, x: say("lt", say("abs", x), torch.inf),
    "isinf": lambda say, x: say("eq", say("abs", x), torch.inf),
    "isnan": lambda say, x: say("ne", x, x),
    "norm_1": lambda say, x: say("sum", say("abs", x)),
    "norm_inf": lambda say, x: say("amax", say("abs", x)),
}
_NORMS = {1: "norm_1", 2: "norm", torch.inf: "norm_inf"}

_ALSO = {
    "add": "__add__", "sub": "subtract __sub__", "mul": "multiply __mul__",
    "div": "divide true_divide __truediv__", "pow": "__pow__", "neg": "negative __neg__",
    "lt": "less __lt__", "le": "less_equal __le__", "gt": "greater __gt__", "ge": "greater_equal __ge__",
    "eq": "__eq__", "ne": "not_equal __ne__",
    "logical_and": "__and__", "logical_or": "__or__", "logical_xor": "__xor__", "logical_not": "__invert__",
    "abs": "absolute __abs__", "sign": "sgn", "clamp": "clip", "amax": "max", "amin": "min",
}  # fmt: skip
_UNARY = {
    "neg", "logical_not", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos",
    "tanh", "sigmoid", "floor", "ceil", "isfinite", "isinf", "isnan",
}  # fmt: skip
# What torch calls the operands, for a rule that gives them by name.
_OPERANDS = {
    **dict.fromkeys(_UNARY | REDUCTIONS, ("input",)),
    "pow": ("input", "exponent"),
    "clamp": ("input", "min", "max"),
    "where": ("condition", "input", "other"),
}


def _spellings() -> dict[Any, str]:
    known = {torch.special.expit: "sigmoid"}
    for word in (*TENSORS, "isfinite", "isinf", "isnan"):
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
    if function in _NORM_ARGUMENTS:
        return _norm(function, arguments, keywords)
    word = _SPELLINGS.get(function, "")
    names = _OPERANDS.get(word, ("input", "other"))
    operands = dict(zip(names, arguments, strict=False)) | {**keywords}
    if word == "clamp":  # one bound may be missing
        given = {name: value for name, value in operands.items() if value is not None}
        operands = {"min": -torch.inf, "max": torch.inf} | given
    if not word or len(arguments) > len(names) or operands.keys() != set(names):
        return None  # out=, alpha=, dtype=, where(condition)
    return word, tuple(operands[name] for name in names)


_NORM_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    torch.norm: ("input", "p", "dim", "keepdim", "out", "dtype"),
    Tensor.norm: ("input", "p", "dim", "keepdim", "dtype"),
    torch.linalg.norm: ("input", "flattened", "dim", "keepdim"),  # an order would make it one of matrices
    torch.linalg.vector_norm: ("input", "ord", "dim", "keepdim"),
}


def _norm(
    function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[str, tuple[Any, ...]] | None:
    """The norm of a whole tensor as if it were a vector, of an order that there is a word for."""
    given = dict(zip(_NORM_ARGUMENTS[function], arguments, strict=False)) | {**keywords}
    tensor = given.pop("input", given.pop("x", given.pop("A", None)))
    order = given.pop("p", given.pop("ord", 2) if function is not torch.linalg.norm else 2)
    if order == "fro":
        order = 2
    if any(value is not None and value is not False for value in given.values()):
        return None
    return (_NORMS[order], (tensor,)) if type(order) in (int, float) and order in _NORMS else None


# Powers that torch does not compute as powers.
POWERS: dict[float, Callable[[Say, Any], Any]] = {
    2: lambda say, x: say("mul", x, x),
    3: lambda say, x: say("mul", say("mul", x, x), x),
    0.5: lambda say, x: say("sqrt", x),
    -0.5: lambda say, x: say("rsqrt", x),
    -1: lambda say, x: say("reciprocal", x),
    -2: lambda say, x: say("reciprocal", say("mul", x, x)),
}
