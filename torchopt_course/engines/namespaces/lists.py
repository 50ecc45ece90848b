"""What operators and the functions of ``xp`` mean for lists of tensors: one ``torch._foreach_*`` call."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The operations that torch has over lists; any other runs tensor by tensor.
_NAMES: dict[Callable[..., Any], str] = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div",
    operator.pow: "pow", operator.neg: "neg", torch.sqrt: "sqrt", torch.rsqrt: "rsqrt", torch.abs: "abs",
    torch.sign: "sign", torch.exp: "exp", torch.log: "log", torch.sin: "sin", torch.cos: "cos",
    torch.tanh: "tanh", torch.sigmoid: "sigmoid", torch.reciprocal: "reciprocal",
    torch.maximum: "maximum", torch.minimum: "minimum",
}  # fmt: skip
_COMMUTE = (operator.add, operator.mul)


def apply(function: Callable[..., Any], operands: list[Any], free: list[bool]) -> Any:
    """Apply an operation to lists of tensors and numbers.

    Args:
        function: an operation on tensors, or one of this module's.
        operands: lists of equally many tensors, and numbers.
        free: which of the operands may be overwritten.

    Returns:
        A list of tensors: one of the free operands itself if its memory was used. A number if all are.
    """
    is_list = [isinstance(operand, list) for operand in operands]
    if not any(is_list):
        return function(*operands)
    if function in (add_product, add_quotient):
        return function(*operands, in_place=free[0])
    if function in _COMMUTE and (not is_list[0] or (is_list[1] and free[1] and not free[0])):
        operands, free, is_list = operands[::-1], free[::-1], is_list[::-1]
    name = _NAMES.get(function)
    if name is None or not is_list[0]:
        length = len(operands[is_list.index(True)])
        columns = [o if listed else [o] * length for o, listed in zip(operands, is_list, strict=True)]
        return [_apart(function(*items), items) for items in zip(*columns, strict=True)]
    return _call(name, operands, in_place=free[0])


def _apart(result: Tensor, items: tuple[Any, ...]) -> Tensor:
    """In memory of its own: ``+x`` and ``x.float()`` may be x itself, and would be written over with it."""
    memory = result.untyped_storage().data_ptr()
    shared = any(isinstance(x, Tensor) and x.untyped_storage().data_ptr() == memory for x in items)
    return result.clone() if shared else result


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


def _split(operands: tuple[Any, ...]) -> tuple[list[list[Tensor]], float]:
    tensors = [operand for operand in operands if isinstance(operand, list)]
    return tensors, math.prod(operand for operand in operands if not isinstance(operand, list))


def _call(name: str, operands: list[Any], *, in_place: bool, **options: Any) -> list[Tensor]:
    result = getattr(torch, f"_foreach_{name}{'_' if in_place else ''}")(*operands, **options)
    # The same list object tells that the result stands in its memory.
    return operands[0] if in_place else list(result)
