"""Forward and reverse trace of a program of numbers, as tables (Baydin et al., 2018, tables 2 and 3).

>>> print(trace(lambda x, y: x * y + torch.sin(x), x=2, y=3))
forward: every value, and its derivative with respect to each input
...
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .forward import like, push
from .reverse import Leaf, fit
from .traced import Value, is_tensor, raw
from .written import BAR, DOT, SUM, WritingLevel, Written, in_short, marked, table, text_of, written

if TYPE_CHECKING:
    from .primitives.table import Primitive


class Statement(NamedTuple):
    """A line of the forward trace.

    Attributes:
        name: of the value: v1, v2, ... in the order in which the program computes; an input has its own.
        text: as it is computed, ``v1 = x * y``.
        value: what came out.
        tangent: how the derivative is computed, ``v̇1 = ẋ * y + ẏ * x``.
        tangents: that derivative with respect to each input.
    """

    name: str
    text: str
    value: Tensor
    tangent: str
    tangents: dict[str, Tensor]


class Adjoint(NamedTuple):
    """A line of the reverse trace.

    Attributes:
        of: the name of the value that the result is differentiated by, so far.
        because: the statement of the program through which this share comes; empty for the result itself.
        text: how it is computed, ``x̄ = x̄ + v̄2 * cos(x)``.
        value: what has come together.
    """

    of: str
    because: str
    text: str
    value: Tensor


@dataclass(frozen=True)
class Trace:
    """A program's run with all of its derivatives. Print it; notebooks show it as tables.

    Attributes:
        inputs: by name.
        value: the result.
        forward: one line for each input, then for each operation.
        reverse: from the result back to the inputs.
    """

    inputs: dict[str, Tensor]
    value: Tensor
    forward: list[Statement] = field(default_factory=list)
    reverse: list[Adjoint] = field(default_factory=list)

    @property
    def gradient(self) -> dict[str, Tensor]:
        """The result's derivative with respect to each input, as the reverse trace ends."""
        found = {line.of: line.value for line in self.reverse}
        return {name: found.get(name, torch.zeros_like(x)) for name, x in self.inputs.items()}

    def __str__(self) -> str:
        return "\n\n".join(f"{title}\n\n{table(*cells)}" for title, cells in self._tables())

    def markdown(self) -> str:
        """Both traces as Markdown tables."""
        return "\n\n".join(
            f"**{title}**\n\n{table(*cells, markdown=True)}" for title, cells in self._tables()
        )

    _repr_markdown_ = markdown

    def _tables(self) -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
        head = ["statement", "value", "tangent", *(f"d/d{name}" for name in self.inputs)]
        forward = [
            [line.text, in_short(line.value), line.tangent, *map(in_short, line.tangents.values())]
            for line in self.forward
        ]
        reverse = [[line.because, line.text, in_short(line.value)] for line in self.reverse]
        return [
            ("Forward: each value, and its derivative with respect to each input", (head, forward)),
            (
                "Reverse: the result's derivative with respect to each value",
                (["through", "adjoint", "value"], reverse),
            ),
        ]


class _Operation(NamedTuple):
    """What the program did: an operation on written values."""

    op: Primitive
    args: tuple[Value, ...]
    result: Written
    text: str

    @property
    def moving(self) -> list[int]:
        return [i for i, arg in enumerate(self.args) if isinstance(arg, Written)]


class _Program(WritingLevel):
    """Gives each result a name instead of its text."""

    __slots__ = ("operations", "prefix")

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.operations: list[_Operation] = []
        self.prefix = prefix

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        self.check_open(op)
        name = f"{self.prefix}{len(self.operations) + 1}"
        text = f"{name} = {written(op, args)[0]}"
        result = op(*[raw(arg) for arg in args])
        # Copies, for the program may go on to change its values in place.
        known = tuple(_anew(arg, self) for arg in args)
        self.operations.append(_Operation(op, known, Written(result.clone(), self, name), text))
        return Written(result, self, name)


def trace(program: Callable[..., Any], /, *args: float | Tensor, **inputs: float | Tensor) -> Trace:
    """Run a program of numbers and write down every step, its value and its derivatives.

    The forward trace has the tangent of each value with respect to each input (one run of forward mode for
    each of them); the reverse trace has the adjoint of each value, dz/dv, from the result back to the inputs.
    The formulas are those that the rules in the table of primitives really compute.

    Args:
        program: takes numbers (0-d tensors), uses torch's functions, and returns one.
        args, inputs: where: a number for each argument of the program, by position or by name.

    Raises:
        TypeError: an input or a result that is no single number; arguments that do not fit the program.
        ValueError: the result does not depend on the inputs.
        NotImplementedError: an operation without an entry in the table of primitives.
    """
    names, bound = _bind(program, args, inputs)
    prefix = next(p for p in "vwuabc" if not any(re.fullmatch(rf"{p}\d+", name) for name in names))
    points = {name: _number(name, value) for name, value in zip(names, bound, strict=True)}
    level = _Program(prefix)
    with level, torch.enable_grad():
        given = [Written(x.clone(), level, name) for name, x in points.items()]
        result = program(
            *given[: len(args)], **dict(zip(names[len(args) :], given[len(args) :], strict=True))
        )
    if not is_tensor(result) or result.dim() != 0:
        what = f"shape {tuple(result.shape)}" if is_tensor(result) else type(result).__name__
        raise TypeError(f"trace: the program must return a single number, not {what}")
    if not isinstance(result, Written) or result.level is not level:
        raise ValueError("trace: the result does not depend on the inputs")
    with torch.no_grad():
        forward, reverse = _forward(points, level), _reverse(level, result)
    return Trace(points, raw(result).clone(), forward, reverse)


def _bind(
    program: Callable[..., Any], args: Sequence[Any], inputs: dict[str, Any]
) -> tuple[list[str], list[Any]]:
    """The names of the inputs, those given by position first, and their values."""
    try:
        signature = inspect.signature(program)
    except ValueError:  # one of torch's own functions
        names = [f"x{n + 1}" for n in range(len(args))] if len(args) > 1 else ["x"][: len(args)]
        return [*names, *inputs], [*args, *inputs.values()]
    signature.bind(*args, **inputs)
    names = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{name}{n + 1}" for n in range(len(args) - len(names))]
        elif len(names) < len(args):
            names.append(name)
    return [*names, *inputs], [*args, *inputs.values()]


def _number(name: str, value: Any) -> Tensor:
    if not isinstance(value, int | float) and not (isinstance(value, Tensor) and value.dim() == 0):
        what = f"a tensor of shape {tuple(value.shape)}" if is_tensor(value) else type(value).__name__
        raise TypeError(f"trace: the input {name!r} must be a number, not {what}")
    return torch.as_tensor(value, dtype=torch.float64).detach()


def _forward(points: dict[str, Tensor], program: _Program) -> list[Statement]:
    texts: dict[str, str] = {}
    columns: dict[str, dict[str, Tensor]] = {}
    for of in points:
        level = WritingLevel()
        with level:
            dots = {name: torch.tensor(float(name == of), dtype=torch.float64) for name in points}
            for op, args, result, _ in program.operations:
                tangents = [
                    Written(dots[arg.text], level, marked(arg.text, DOT))
                    if isinstance(arg, Written)
                    else None
                    for arg in args
                ]
                known = [_anew(arg, level) for arg in args]
                tangent = push(op, tangents, known, Written(result.data, level, result.text))
                texts[result.text] = f"{marked(result.text, DOT)} = {text_of(tangent)}"
                dots[result.text] = raw(like(raw(tangent), result.data, op))
        columns[of] = dots
    rows = [
        Statement(
            name, f"{name} = {in_short(x)}", x, f"{marked(name, DOT)} = {in_short(columns[name][name])}", {}
        )
        for name, x in points.items()
    ]
    rows += [Statement(r.text, text, r.data, texts[r.text], {}) for _, _, r, text in program.operations]
    return [row._replace(tangents={of: columns[of][row.name] for of in points}) for row in rows]


def _reverse(program: _Program, result: Written) -> list[Adjoint]:
    bars = {result.text: torch.ones_like(result.data)}
    lines = [Adjoint(result.text, "", f"{marked(result.text, BAR)} = 1", bars[result.text])]
    for operation in reversed(program.operations):
        op, args, y, text = operation
        if y.text not in bars:
            continue
        level = WritingLevel()
        with level:
            known = [*(_anew(arg, level) for arg in args), Written(y.data, level, y.text), *op.no_aux]
            moving = operation.moving
            plan = op.plan(sum(1 << len(args) - 1 - i for i in moving) | 1 << len(args))
            shares = plan.pull(Written(bars[y.text], level, marked(y.text, BAR)), plan.save(known)[0])
            for i, share in zip(moving, shares, strict=True):
                name, bar = args[i].text, marked(args[i].text, BAR)
                if share is None:
                    continue
                share = fit(share, Leaf(args[i].data), op)
                total = Written(bars[name], level, bar, SUM) + share if name in bars else share
                bars[name] = raw(total)
                lines.append(Adjoint(name, text, f"{bar} = {text_of(total)}", bars[name]))
    return lines


def _anew(arg: Value, level: WritingLevel) -> Value:
    """A value of the program, written as itself, on another level."""
    return Written(raw(arg).clone(), level, arg.text) if isinstance(arg, Written) else arg
