"""What the words of a rule mean in a kernel for the GPU: source text, for Triton and a block of numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..rule.program import Line

# `xp` is the module `.triton`; `tl.REAL` becomes the precision in which is computed.
_TEXTS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "square": "{0} * {0}", "reciprocal": "1.0 / {0}",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}",
    "logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} ^ {1}",
    "logical_not": "{0} == 0",
    "where": "tl.where({0}, {1}, {2})", "pow": "xp.power({0}, {1})",
    "fill": "tl.where(i >= 0, {1}, {1})", "real": "{0}.to(tl.REAL)",
}  # fmt: skip
# What a kernel computes of numbers as Python does.
OF_NUMBERS = frozenset(
    {"add", "sub", "mul", "div", "pow", "neg", "abs", "sqrt", "exp", "log", "sin", "cos", "floor", "ceil"}
)
# A power of more is no few products any more.
MOST_PRODUCTS = 64


class SourceText:
    """Operations of a program as source text.

    Args:
        per_tensor: those on numbers of a whole tensor.
        lines: those on its elements.
        real: the precision in which it is computed, in Triton's words.

    Attributes:
        constants: lines that give the numbers in them that precision.
        per_tensor, lines: the operations.
    """

    def __init__(self, per_tensor: Sequence[Line], lines: Sequence[Line], real: str) -> None:
        self.constants: list[str] = []
        self._real = real
        self.per_tensor = [self._text(line) for line in per_tensor]
        self.lines = [self._text(line) for line in lines]
        self._outs = [line.out for line in lines]

    def round(self, name: str, kind: str) -> None:
        """A result is what is left of it in another kind of number, for what follows."""
        if name in self._outs:
            after = self._outs.index(name) + 1
            self.lines.insert(after, f"{name} = {name}.to(tl.{kind}).to(tl.{self._real})")

    def _text(self, line: Line) -> str:
        exponent = line.operands[-1]
        if line.word == "pow" and exponent in range(1, MOST_PRODUCTS + 1):
            return f"{line.out} = xp.whole_power({line.operands[0]}, {int(exponent)})"
        operands = [name if isinstance(name, str) else self._constant(float(name)) for name in line.operands]
        places = ", ".join(f"{{{i}}}" for i in range(len(operands)))
        template = _TEXTS.get(line.word, f"xp.{line.word}({places})").replace("REAL", self._real)
        if line.word == "fill" and line.per_tensor:
            template = "{1}"
        return f"{line.out} = {template.format(*operands)}"

    def _constant(self, number: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(f'{name} = tl.full((), float("{number!r}"), tl.{self._real})')
        return name
