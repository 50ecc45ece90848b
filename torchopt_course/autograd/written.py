"""Values that know how they are written: ``x * y`` computes a product and the text "x * y".

A derivative rule of the table, run on written values, writes down the derivative.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .primitives.table import REQUIRED
from .traced import Level, Traced, Value, hold, raw

if TYPE_CHECKING:
    from .primitives.table import Primitive

# How tightly an operator binds.
SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4
INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT),
    "matmul": ("@", PRODUCT), "remainder": ("%", PRODUCT), "pow": ("**", POWER),
}  # fmt: skip


class Written(Traced):
    """A value and its text."""

    text: str
    binding: int
    is_leaf = False  # so that it may be changed in place

    def __new__(cls, data: Tensor, level: Level, text: str, binding: int = ATOM) -> Written:
        value = hold(cls, data)
        value.level, value.text, value.binding = level, text, binding
        return value

    def moved(self, memory: Tensor) -> Written:
        return Written(memory, self.level, self.text, self.binding)

    def adopt(self, other: Written) -> None:  # type: ignore[override]
        self.text, self.binding = other.text, other.binding

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Written({self.text} = {in_short(self.data)})"


class WritingLevel(Level):
    """Computes each operation, and writes it down."""

    __slots__ = ()

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        self.check_open(op)
        return Written(op(*[raw(arg) for arg in args]), self, *written(op, args))


def written(op: Primitive, args: Sequence[Value]) -> tuple[str, int]:
    """An operation as text, and how tightly that binds."""
    if op.name == "neg":
        return f"-{_bound(args[0], PRODUCT)}", PRODUCT
    if op.name in INFIX:
        sign, binding = INFIX[op.name]
        left = _bound(args[0], binding + (sign == "**"))
        right = _bound(args[1], binding + (sign not in "+*"))
        if sign == "+" and right.startswith("-"):
            return f"{left} - {right[1:]}", binding
        return f"{left} {sign} {right}", binding
    given = [text_of(arg) for arg in args]
    if not op.variadic:  # leave out what has its default, and name what had one
        pairs = zip(op.parameters, op.defaults, args, given, strict=True)
        given = [
            text if isinstance(arg, Traced | Tensor) or default is REQUIRED else f"{name}={text}"
            for name, default, arg, text in pairs
            if isinstance(arg, Traced | Tensor) or arg is not default
        ]
    return f"{op.name}({', '.join(given)})", ATOM


def _bound(arg: Value, binding: int) -> str:
    if isinstance(arg, Tensor) and arg.dtype == torch.bool:
        arg = arg.int()  # a factor
    text = text_of(arg)
    own = arg.binding if isinstance(arg, Written) else PRODUCT if text.startswith("-") else ATOM
    return text if own >= binding else f"({text})"


def text_of(arg: Value) -> str:
    """A name, a formula, or a constant."""
    if isinstance(arg, Written):
        return arg.text
    arg = raw(arg)
    return in_short(arg) if isinstance(arg, Tensor | float) else str(arg)


MOST_NUMBERS = 3  # of a tensor that is written out


def in_short(value: Tensor | float, digits: int = 6) -> str:
    """The first digits of each number; of large tensors the shape."""
    if not isinstance(value, Tensor):
        return f"{value + 0.0:.{digits}g}"  # + 0.0 makes -0 a 0
    if value.numel() > MOST_NUMBERS:
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if value.dim() == 0:
        return str(value.item()) if value.dtype == torch.bool else in_short(value.item(), digits)
    return f"[{', '.join(in_short(x, digits) for x in value)}]"


DOT, BAR = "\u0307", "\u0304"


def marked(name: str, mark: str) -> str:
    """ẋ₁ as x1 with a dot above its letter; longer names with a word behind them."""
    if re.fullmatch(r"[^\W\d_]\d*", name):
        return unicodedata.normalize("NFC", name[0] + mark + name[1:])
    return name + ("_dot" if mark == DOT else "_bar")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Columns of equal width, numbers (all but the texts with an equals sign) to the right."""

    def width(text: str) -> int:
        return len(text) - sum(text.count(mark) for mark in (DOT, BAR))

    if markdown:
        lines: list[Any] = [head, ["---"] * len(head), *rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
    widths = [max(width(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = []
        for k, (cell, w) in enumerate(zip(row, widths, strict=True)):
            space = " " * (w - width(cell))
            cells.append(space + cell if _is_number(rows, k) else cell + space)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(rows: Sequence[Sequence[str]], k: int) -> bool:
    return not any("=" in row[k] for row in rows)
