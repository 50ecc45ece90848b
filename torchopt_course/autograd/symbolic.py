"""Symbolic differentiation: the formula of the derivative, as the lecture's first way.

The program runs once on symbols; each primitive says which sympy function it is. Sympy differentiates::

    >>> def program(x, y):
    ...     a = x * y
    ...     b = torch.sin(x)
    ...     return a + b
    >>> print(symbolic.formula(program))
    z = x*y + sin(x)
    dz/dx = y + cos(x)
    dz/dy = x

A program is more than a formula: loops are unrolled, and a branch on a value has no formula at all, which is
an error here. That, and how formulas swell, is why the other ways exist.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from .traced import Level, Traced, Value, hold, is_tensor, raw

if TYPE_CHECKING:
    from .primitives.table import Primitive


class Symbol(Traced):
    """A number of which only the name, or the formula, is known."""

    expression: Any

    def __new__(cls, expression: Any, level: Level) -> Symbol:
        symbol = hold(cls, torch.tensor(torch.nan, dtype=torch.float64))
        symbol.level, symbol.expression = level, expression
        return symbol

    def _no_value(self, *args: object) -> NoReturn:
        raise TypeError(
            f"{self.expression} is a symbol and has no value to compare or convert: a program that branches "
            "on values has no formula"
        )

    __bool__ = __float__ = __int__ = __lt__ = __le__ = __gt__ = __ge__ = _no_value
    item = tolist = detach = _no_value
    __eq__ = __ne__ = _no_value
    __hash__ = Traced.__hash__

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Symbol({self.expression})"


class SymbolicLevel(Level):
    """Writes down instead of computing."""

    __slots__ = ()

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        import sympy  # type: ignore[import-untyped]

        self.check_open(op)
        if op.symbolic is None:
            raise NotImplementedError(
                f"{op} has no symbolic rule; @primitive(..., symbolic=...) gives it one"
            )
        given = [self._expression(arg, op) for arg in args if arg is not None]
        rule = getattr(sympy, op.symbolic) if isinstance(op.symbolic, str) else op.symbolic
        return Symbol(rule(*given), self)

    def _expression(self, arg: Value, op: Primitive) -> Any:
        if isinstance(arg, Symbol):
            return arg.expression
        if is_tensor(arg):
            if arg.numel() != 1:
                raise TypeError(
                    f"{op}: symbolic programs are made of scalars, not of shape {tuple(arg.shape)}"
                )
            arg = raw(arg).item()
        # 2.0 as 2: an exact number stays exact in the formula.
        return int(arg) if isinstance(arg, float) and arg.is_integer() else arg


@dataclass(frozen=True)
class Formula:
    """What a scalar program computes, and its partial derivatives, as sympy expressions.

    Attributes:
        expression: the result.
        derivatives: for each argument, by name.
        symbols: the arguments.
    """

    expression: Any
    derivatives: dict[str, Any]
    symbols: tuple[Any, ...]

    def __str__(self) -> str:
        lines = [f"dz/d{name} = {derivative}" for name, derivative in self.derivatives.items()]
        return "\n".join([f"z = {self.expression}", *lines])

    def _repr_latex_(self) -> str:
        import sympy

        rows = [rf"z &= {sympy.latex(self.expression)}"]
        rows += [
            rf"\frac{{\partial z}}{{\partial {name}}} &= {sympy.latex(d)}"
            for name, d in self.derivatives.items()
        ]
        return r"$$\begin{aligned}" + r" \\ ".join(rows) + r"\end{aligned}$$"

    def grad(self, *args: Tensor | float) -> tuple[Tensor, ...]:
        """The derivatives at a point, in the order of the arguments, as float64 tensors."""
        if len(args) != len(self.symbols):
            raise TypeError(f"the formula has {len(self.symbols)} arguments, not {len(args)}")
        point = dict(zip(self.symbols, [float(x) for x in args], strict=True))
        return tuple(
            torch.tensor(float(d.evalf(17, subs=point)), dtype=torch.float64)
            for d in self.derivatives.values()
        )


def formula(func: Callable[..., Any]) -> Formula:
    """Run a program of scalars on symbols named like its arguments, and differentiate the result.

    Args:
        func: takes 0-d tensors as positional arguments and returns one.

    Raises:
        NotImplementedError: an operation without a symbolic rule.
        TypeError: a branch on a value; a tensor with more than one element; a result that is no scalar.
        ModuleNotFoundError: sympy is missing (``pip install torchopt-course[autograd]``).
    """
    try:
        import sympy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "symbolic differentiation needs sympy: pip install 'torchopt-course[autograd]'", name="sympy"
        ) from error
    names = list(inspect.signature(func).parameters)
    symbols = tuple(sympy.Symbol(name, real=True) for name in names)
    with SymbolicLevel() as level:
        result = func(*[Symbol(symbol, level) for symbol in symbols])
    if isinstance(result, Symbol):
        expression = result.expression
    elif isinstance(result, int | float):
        expression = sympy.sympify(result)
    else:
        raise TypeError(f"a symbolic program returns one scalar, not {type(result).__name__}")
    derivatives = {name: sympy.diff(expression, s) for name, s in zip(names, symbols, strict=True)}
    return Formula(expression, derivatives, symbols)
