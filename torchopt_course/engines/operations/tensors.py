"""What the words of a rule mean for one tensor: source text, in place where torch has an operation for it."""

from __future__ import annotations

from collections.abc import Sequence

from .joined import PRODUCT, QUOTIENT

# The words that every tensor has a method for that overwrites it.
_METHODS = frozenset(
    {
        "add", "sub", "mul", "div", "pow", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal",
        "exp", "log", "sin", "cos", "tanh", "sigmoid", "floor", "ceil", "clamp",
    }
)  # fmt: skip
_COMMUTE = frozenset({"add", "mul"})
# Of two tensors, either can be overwritten.
_OF_TWO = frozenset({"add", "sub", "mul", "div", "pow", "maximum", "minimum"})

NAME = "tensors"


def in_place(word: str, operands: Sequence[str], is_tensor: Sequence[bool], at: int) -> str | None:
    """A statement that writes ``word(*operands)`` over operand ``at``; ``None`` if there is none."""
    if word in (PRODUCT, QUOTIENT):
        return f"{operands[0]}.{_joined(word, operands, '_')}" if at == 0 else None
    if at == 1 and word in _COMMUTE:
        operands, at = operands[::-1], 0
    if at == 0 and word in _METHODS:
        return f"{operands[0]}.{word}_({', '.join(operands[1:])})"
    if word in _OF_TWO and all(is_tensor):
        return f"torch.{word}({', '.join(operands)}, out={operands[at]})"
    return None


def fresh(word: str, operands: Sequence[str], is_tensor: Sequence[bool]) -> str:
    """An expression for ``word(*operands)`` in memory of its own."""
    if word in (PRODUCT, QUOTIENT):
        return f"{operands[0]}.{_joined(word, operands, '')}"
    return f"{word}({', '.join(operands)})"


def _joined(word: str, operands: Sequence[str], ending: str) -> str:
    _, *tensors, scale = operands
    if word == PRODUCT and len(tensors) == 1:
        return f"add{ending}({tensors[0]}, alpha={scale})"
    name = "addcmul" if word == PRODUCT else "addcdiv"
    return f"{name}{ending}({', '.join(tensors)}, value={scale})"


def copy(target: str, source: str) -> str:
    return f"{target}.copy_({source})"


def clone(source: str) -> str:
    return f"{source}.clone()"
