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

from .dispatch import TABLE
from .traced import Level, Traced, Value, hold, is_tensor, raw

if TYPE_CHECKING:
    from .primitives.table import Primitive


class Symbol(Traced):
    """A number, or a condition, of which only the name or the formula is known."""

    expression: Any
    is_leaf = False  # so that it may be changed in place

    def __new__(cls, expression: Any, level: Level) -> Symbol:
        symbol = hold(cls, torch.tensor(torch.nan, dtype=torch.float64))
        symbol.level, symbol.expression = level, expression
        return symbol

    @classmethod
    def __torch_function__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        condition = CONDITIONS.get(name.strip("_"))
        if condition is not None:
            return _condition(condition, *args, **(kwargs or {}))
        if name == "__get__" and func not in TABLE:  # an attribute, such as the dtype
            return func(raw(args[0]))
        if name in NEED_VALUES:
            next(x for x in args if isinstance(x, Symbol))._no_value()
        return super().__torch_function__(func, types, args, kwargs)

    def _no_value(self, *args: object) -> NoReturn:
        raise TypeError(
            f"{self.expression} has no value, for its symbols have none: a program that branches on values "
            "has no formula; torch.where has one"
        )

    __bool__ = __float__ = __int__ = _no_value
    item = tolist = _no_value
    __hash__ = Traced.__hash__
    is_formula = True

    def detach(self) -> Symbol:
        """The same number, which differentiation takes for a constant."""
        return Symbol(self.level.constant(self.expression), self.level)  # type: ignore[attr-defined]

    def moved(self, memory: Tensor) -> Symbol:
        return Symbol(self.expression, self.level)

    def adopt(self, other: Symbol) -> None:  # type: ignore[override]
        self.expression = other.expression

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Symbol({self.expression})"


# What torch's comparisons are to sympy; ``x > 0`` is a condition, for torch.where.
CONDITIONS = {
    "lt": "Lt", "le": "Le", "gt": "Gt", "ge": "Ge", "eq": "Eq", "ne": "Ne",
    "less": "Lt", "less_equal": "Le", "greater": "Gt", "greater_equal": "Ge", "not_equal": "Ne",
    "and": "And", "or": "Or", "invert": "Not",
    "logical_and": "And", "logical_or": "Or", "logical_not": "Not",
}  # fmt: skip
# Functions that answer from values, where there are none.
NEED_VALUES = frozenset({
    "equal", "isclose", "allclose", "isnan", "isinf", "isfinite", "isneginf", "isposinf", "isreal", "signbit",
    "logical_xor", "all", "any", "argmax", "argmin", "argsort", "nonzero", "count_nonzero", "unique",
    "bincount", "histc", "searchsorted", "bucketize", "bernoulli", "poisson", "normal", "multinomial",
    "is_nonzero", "one_hot",
})  # fmt: skip


def _condition(name: str, *args: Any) -> Symbol:
    import sympy  # type: ignore[import-untyped]

    level = next(arg.level for arg in args if isinstance(arg, Symbol))
    return Symbol(getattr(sympy, name)(*[_expression(arg, name) for arg in args]), level)


def _compares(name: str) -> Callable[[Symbol, Any], Symbol]:
    return lambda x, y: _condition(CONDITIONS[name], x, y)


for _name in ("lt", "le", "gt", "ge", "eq", "ne", "and", "or"):
    setattr(Symbol, f"__{_name}__", _compares(_name))
setattr(Symbol, "__invert__", lambda x: _condition("Not", x))  # noqa: B010


class SymbolicLevel(Level):
    """Writes down instead of computing."""

    __slots__ = ("constants",)

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[Any, Any] = {}

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        self.check_open(op)
        if op.symbolic is None:
            raise NotImplementedError(
                f"{op} has no symbolic rule; @primitive(..., symbolic=...) gives it one"
            )
        given = [None if arg is None else _expression(arg, op) for arg in args]
        return Symbol(self._rule(op)(*given), self)

    def _rule(self, op: Primitive) -> Callable[..., Any]:
        import sympy

        if callable(op.symbolic):
            return lambda *args: op.symbolic(*[arg for arg in args if arg is not None])
        if op.symbolic.isidentifier() and op.symbolic not in op.parameters:
            return getattr(sympy, op.symbolic)  # type: ignore[no-any-return]
        code = compile(op.symbolic, f"<symbolic rule of {op}>", "eval")
        names = {**vars(sympy), "constant": self.constant}
        return lambda *args: eval(code, names | dict(zip(op.parameters, args, strict=True)))

    def constant(self, expression: Any) -> Any:
        """Something that differentiation passes by: the steps of floor, what was detached."""
        import sympy

        known = self.constants.setdefault(expression, sympy.Dummy(real=True))
        return known if getattr(expression, "free_symbols", ()) else expression

    def restored(self, expression: Any) -> Any:
        """The same with the constants written out."""
        written = {known: original for original, known in self.constants.items()}
        while expression.free_symbols & written.keys():
            expression = expression.xreplace(written)
        return expression


def _expression(arg: Value, op: object) -> Any:
    if isinstance(arg, Symbol):
        return arg.expression
    if is_tensor(arg):
        if arg.numel() != 1:
            raise TypeError(f"{op}: symbolic programs are made of scalars, not of shape {tuple(arg.shape)}")
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
        import sympy

        numbers = [sympy.Float(float(x.detach() if isinstance(x, Tensor) else x), 17) for x in args]
        point = dict(zip(self.symbols, numbers, strict=True))
        values = [derivative.xreplace(point).evalf(17) for derivative in self.derivatives.values()]
        for name, value in zip(self.derivatives, values, strict=True):
            if not value.is_number:
                raise ValueError(f"dz/d{name} has no value at this point: {value}")
        return tuple(torch.tensor(float(value), dtype=torch.float64) for value in values)


def formula(func: Callable[..., Any]) -> Formula:
    """Run a program of scalars on symbols named like its arguments, and differentiate the result.

    Args:
        func: takes 0-d tensors as positional arguments and returns one. Arguments with a default keep it.

    Raises:
        NotImplementedError: an operation without a symbolic rule.
        TypeError: a branch on a value; a tensor with more than one element; a result that is no scalar.
        ModuleNotFoundError: sympy is missing (``pip install sympy``).
    """
    try:
        import sympy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "symbolic differentiation needs sympy: pip install sympy", name="sympy"
        ) from error
    names = _names(func)
    symbols = tuple(sympy.Symbol(name, real=True) for name in names)
    level = SymbolicLevel()
    with level, torch.enable_grad():
        result = func(*[Symbol(symbol, level) for symbol in symbols])
    if isinstance(result, Symbol):
        expression = result.expression
    elif isinstance(result, int | float):
        expression = sympy.sympify(result)
    else:
        raise TypeError(f"a symbolic program returns one scalar, not {type(result).__name__}")
    derivatives = {
        name: level.restored(sympy.diff(expression, symbol))
        for name, symbol in zip(names, symbols, strict=True)
    }
    return Formula(level.restored(expression), derivatives, symbols)


def _names(func: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(func).parameters.values()
    except ValueError:  # one of torch's own, of one argument, or its call will say so
        return ["x"]
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


def table() -> str:
    """A Markdown table of the primitives that treat each element alike: the formula of each, or "none"."""
    from .primitives.table import ELEMENTWISE, PRIMITIVES

    lines = ["| primitive | formula for sympy |", "|---|---|"]
    for name, op in PRIMITIVES.items():
        if op.jvp == ELEMENTWISE:
            rule = (
                f"`{op.symbolic}`"
                if isinstance(op.symbolic, str)
                else "a function"
                if op.symbolic
                else "none"
            )
            lines.append(f"| `{name}({', '.join(op.parameters)})` | {rule} |")
    return "\n".join(lines)
