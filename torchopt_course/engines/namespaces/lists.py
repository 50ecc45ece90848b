"""What the words of a rule mean for lists of tensors: one ``torch._foreach_*`` call."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .words import TENSORS

# The words that torch has an operation over lists for; any other is said tensor by tensor.
_OVER_LISTS = {
    "add", "sub", "mul", "div", "pow", "neg", "abs", "sign", "exp", "log", "sin", "cos", "tanh", "sigmoid",
    "sqrt", "rsqrt", "reciprocal", "maximum", "minimum",
}  # fmt: skip
_COMMUTE = ("add", "mul")


def apply(word: str, operands: list[Any], free: list[bool]) -> list[Tensor]:
    """Apply an operation to lists of tensors and numbers.

    Args:
        word: what is done: one of those in :mod:`.words`, ``add_product`` or ``add_quotient``.
        operands: lists of equally many tensors, and numbers.
        free: which of the operands may be overwritten.

    Returns:
        A list of tensors: one of the free operands itself if its memory was used.
    """
    if word in _JOINED:
        return _JOINED[word](*operands, in_place=free[0])
    is_list = [isinstance(operand, list) for operand in operands]
    if word in _COMMUTE and (not is_list[0] or (is_list[1] and free[1] and not free[0])):
        operands, free, is_list = operands[::-1], free[::-1], is_list[::-1]
    if word in _OVER_LISTS and is_list[0]:
        return _call(word, operands, in_place=free[0])
    length = len(operands[is_list.index(True)])
    columns = [o if listed else [o] * length for o, listed in zip(operands, is_list, strict=True)]
    return [TENSORS[word](*items) for items in zip(*columns, strict=True)]


def add_product(x: list[Tensor], *factors: Any, in_place: bool) -> list[Tensor]:
    """``x + s * a`` or ``x + s * a * b``; the numbers among the factors are multiplied to s."""
    tensors, scale = _split(factors)
    if len(tensors) == 1:
        return _call("add", [x, *tensors], in_place=in_place, alpha=scale)
    return _call("addcmul", [x, *tensors], in_place=in_place, value=scale)


def add_quotient(x: list[Tensor], *terms: Any, in_place: bool) -> list[Tensor]:
    """``x + s * a / b``."""
    tensors, scale = _split(terms)
    return _call("addcdiv", [x, *tensors], in_place=in_place, value=scale)


_JOINED = {"add_product": add_product, "add_quotient": add_quotient}


def _split(operands: tuple[Any, ...]) -> tuple[list[list[Tensor]], float]:
    tensors = [operand for operand in operands if isinstance(operand, list)]
    return tensors, math.prod(operand for operand in operands if not isinstance(operand, list))


def _call(name: str, operands: list[Any], *, in_place: bool, **options: Any) -> list[Tensor]:
    result = getattr(torch, f"_foreach_{name}{'_' if in_place else ''}")(*operands, **options)
    # The same list object tells that the result stands in its memory.
    return operands[0] if in_place else list(result)
