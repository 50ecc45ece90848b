"""What the words of a rule mean for lists of tensors: source text, one ``torch._foreach_*`` call a word."""

from __future__ import annotations

from collections.abc import Sequence

from .joined import PRODUCT, QUOTIENT

# The words that torch has an operation over lists for; any other is said tensor by tensor.
_OVER_LISTS = frozenset(
    {
        "add", "sub", "mul", "div", "pow", "neg", "abs", "sign", "exp", "log", "sin", "cos", "tanh",
        "sigmoid", "sqrt", "rsqrt", "reciprocal", "maximum", "minimum", "norm",
    }
)  # fmt: skip
_COMMUTE = frozenset({"add", "mul", "maximum", "minimum"})

NAME = "lists of tensors"


def in_place(word: str, operands: Sequence[str], is_tensor: Sequence[bool], at: int) -> str | None:
    """A statement that writes ``word(*operands)`` over operand ``at``; ``None`` if there is none."""
    if at == 1 and word in _COMMUTE:
        operands, is_tensor, at = operands[::-1], is_tensor[::-1], 0
    return _call(word, operands, is_tensor, "_") if at == 0 else None


def fresh(word: str, operands: Sequence[str], is_tensor: Sequence[bool]) -> str:
    """An expression for ``word(*operands)`` in memory of its own."""
    if word in _COMMUTE and not is_tensor[0]:
        operands, is_tensor = operands[::-1], is_tensor[::-1]
    call = _call(word, operands, is_tensor, "")
    if call is not None:
        return call
    # Tensor by tensor.
    listed = [operand for operand, listed in zip(operands, is_tensor, strict=True) if listed]
    each = {operand: f"each_{operand}" for operand in listed}
    items = ", ".join(each.values())
    lists = ", ".join(each)
    call = f"{word}({', '.join(each.get(operand, operand) for operand in operands)})"
    return f"[{call} for ({items},) in zip({lists}, strict=True)]"


def _call(word: str, operands: Sequence[str], is_tensor: Sequence[bool], ending: str) -> str | None:
    if word in (PRODUCT, QUOTIENT):
        *lists, scale = operands
        if word == PRODUCT and len(lists) == 2:
            return f"torch._foreach_add{ending}({', '.join(lists)}, alpha={scale})"
        name = "addcmul" if word == PRODUCT else "addcdiv"
        return f"torch._foreach_{name}{ending}({', '.join(lists)}, value={scale})"
    if word in _OVER_LISTS and is_tensor[0]:
        return f"torch._foreach_{word}{ending}({', '.join(operands)})"
    return None


def copy(target: str, source: str) -> str:
    return f"torch._foreach_copy_({target}, {source})"


def clone(source: str) -> str:
    return f"[tensor.clone() for tensor in {source}]"
