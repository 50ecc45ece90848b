"""What a primitive is: a value and its derivatives, side by side, in one definition."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .. import autocast, dispatch
from ..traced import Value, highest_level, recording
from ..variable import BASE, Variable, is_recorded
from .checks import check_jvp, checked
from .rules import Function, Plan, as_rule, slots_of

PRIMITIVES: dict[str, Primitive] = {}

# How a JVP follows from what is there already.
LINEAR = "linear"  # f(tangents) is the tangent; arguments without one count as zero
MULTILINEAR = "multilinear"  # the sum of f with one argument at a time replaced by its tangent
ELEMENTWISE = "elementwise"  # the Jacobian is diagonal, so the VJP is the JVP


class Primitive:
    """A function of tensors that knows its derivatives; the decorator :func:`primitive` makes one.

    Called with plain tensors it just computes (within ``record`` those that require a gradient are traced).
    Called with traced values it belongs to the highest of their levels, which asks for the value (of the
    values one level below) and then for what it needs.
    """

    def __init__(
        self,
        name: str,
        forward: Function,
        parameters: Mapping[str, Any],
        vjp: Mapping[str, Function] | Function,
        *,
        fast: Mapping[str, Function] | Function | None = None,
        jvp: Function | str | None = None,
        aux: Sequence[str] = (),
        symbolic: Any = None,
        views: bool = False,
        prepare: Function | None = None,
    ) -> None:
        self.name, self.forward, self.symbolic, self.views = name, forward, symbolic, views
        self.prepare = prepare
        self.jvp: Function | str | None = jvp
        self.parameters, self.defaults = tuple(parameters), tuple(parameters.values())
        self.variadic = any(default is VARIADIC for default in self.defaults)
        self.arity = -1 if self.variadic else len(self.parameters)
        self.no_aux = (None,) * len(aux)

        # Rules by argument, or "*" for a joint one.
        self.joint = callable(vjp)
        rules = {"*": vjp} if callable(vjp) else vjp
        kernels = {next(iter(rules)): fast} if callable(fast) else fast or {}
        rest = self.parameters[-1] if self.variadic else None
        self.slots = slots_of(self.parameters, aux, self.variadic)
        self.rules = {arg: as_rule(rule, self.slots, name, rest) for arg, rule in rules.items()}
        self.kernels = {arg: as_rule(kernel, self.slots, name, rest) for arg, kernel in kernels.items()}
        self.plans: dict[int, Plan] = {}

    # -- calling -----------------------------------------------------------------------------------------

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        if (len(args) != self.arity and not self.variadic) or kwargs:
            args = self.bind(args, kwargs)
        first = args[0] if args else None  # most often of BASE, which hands on what belongs to a higher level
        level = BASE if type(first) is Variable and first.level is BASE else highest_level(args)
        if level is None:
            if not (recording.blocks and is_recorded(args)):
                return self.compute(*args)
            level = BASE
        if autocast.is_on():
            return autocast.apply(self, self.compute, args, {})
        return level.apply(self, args)

    def bind(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[Value, ...]:
        """All arguments in their order, defaults included."""
        for given in kwargs:
            if given not in self.parameters or given in self.parameters[: len(args)]:
                raise dispatch.BadArguments(f"{self.name}() got an unexpected argument {given!r}")
        if len(args) > len(self.parameters):
            raise dispatch.BadArguments(
                f"{self.name}() takes {len(self.parameters)} arguments, not {len(args)}"
            )
        rest = []
        for name, default in zip(self.parameters[len(args) :], self.defaults[len(args) :], strict=True):
            value = kwargs.get(name, default)
            if value is REQUIRED:
                raise dispatch.BadArguments(f"{self.name}() is missing the argument {name!r}")
            rest.append(value)
        return (*args, *rest)

    def compute(self, *args: Value) -> Tensor:
        """The value for plain tensors."""
        result = self.forward(*args)
        return result[0] if self.no_aux else result  # type: ignore[no-any-return]

    def plan(self, variables: int) -> Plan:
        """How to differentiate when these arguments are variables: a bit for each, behind a leading 1."""
        if variables not in self.plans:
            self.plans[variables] = Plan(self, tuple(bit == "1" for bit in f"{variables:b}"[1:]))
        return self.plans[variables]

    def differentiates(self, i: int) -> bool:
        """Whether there is a rule for this argument."""
        return self.joint or self.parameters[i] in self.rules

    def __repr__(self) -> str:
        return self.name


class _Mark:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


REQUIRED, VARIADIC = _Mark("required"), _Mark("any number")


def primitive(
    *overrides: Any,
    vjp: Function | None = None,
    fast: Mapping[str, Function] | Function | None = None,
    jvp: Function | str | None = None,
    aux: Sequence[str] = (),
    symbolic: Any = None,
    views: bool = False,
    **vjps: Function,
) -> Callable[[Function], Primitive]:
    """Decorator: a function of plain tensors and its derivatives become a primitive::

        @primitive(x=lambda g, x: g * 3 * x**2)
        def cube(x):
            return x * x * x

    ``cube(Variable(2.0))`` is recorded, and ``grad``, ``jvp``, ``hessian`` and the cross-check kit know what
    to do with it, to any order.

    Rules are written with torch's functions, which are recorded themselves when a derivative of a derivative
    is wanted. They name what they need, and only that is saved: arguments of the function, ``ans`` (the
    result), ``x_shape``, ``x_dtype``, ``x_device`` (of the argument x, without keeping it), and names in
    ``aux``. Broadcasting and type promotion are undone behind them: ``lambda g, b: g * b`` is the VJP of
    ``a * b`` for all shapes.

    Args:
        overrides: torch functions that the primitive stands for, as ``torch.erfinv``, or names: ``"erfinv"``
            is every function of torch called so.
        vjps: for each differentiable argument its rule ``(g, ...) -> gradient``.
        vjp: instead, one rule ``(g, wanted, ...) -> tuple`` for all arguments at once; ``wanted`` is a tuple
            of booleans, one an argument.
        fast: the same from raw kernels, for when nothing is traced: one for the first argument, a mapping,
            or (with ``vjp``) a joint one.
        jvp: ``(x_dot, ..., x, ..., ans) -> tangent``, by name; or ``"elementwise"`` (the Jacobian is
            diagonal), ``"linear"`` (in all arguments with a VJP together), ``"multilinear"`` (in each).
            Without it the VJP is transposed, which is always right and slower.
        aux: names of extra values; then the function returns ``(result, (values, ...))``. They are ``None``
            when the arguments are themselves traced, so only ``fast`` may rely on them.
        symbolic: the sympy function of the same meaning, by name, or a formula of sympy functions and the
            arguments: ``"log(1 + x)"``; in it ``constant(...)`` is not differentiated. Or a function of
            sympy expressions.
        views: the result may share memory with an argument.

    Raises:
        TypeError: no rule; a rule that asks for something that does not exist. When called: the function
            returns something else than one tensor, or a rule does.
    """

    if vjp is None and not vjps:
        bare = overrides and isinstance(overrides[0], types.FunctionType)
        what = "is called without parentheses, or without a rule" if bare else "needs a rule"
        raise TypeError(
            f"@primitive {what}: @primitive(x=lambda g, x: ...) gives the gradient of the argument x from "
            "that of the result, g"
        )

    def define(forward: Function) -> Primitive:
        parameters = {}
        for name, parameter in inspect.signature(forward).parameters.items():
            required = parameter.default is inspect.Parameter.empty
            parameters[name] = REQUIRED if required else parameter.default
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                parameters[name] = VARIADIC
        for name in vjps:
            if name not in parameters:
                raise TypeError(f"{forward.__name__}() has no argument {name!r} to differentiate")
        check_jvp(forward.__name__, jvp, parameters)
        rules: Any = vjp or vjps
        value, tangent = forward, jvp
        if not (forward.__module__ or "").startswith(__package__):  # not ours: a mistake should be named
            value, rules, tangent = checked(forward, aux, rules, jvp)
        op = Primitive(
            forward.__name__, value, parameters, rules,
            fast=fast, jvp=tangent, aux=aux, symbolic=symbolic, views=views,
        )  # fmt: skip
        op.__doc__ = forward.__doc__
        return enter(op, overrides)

    return define


def elementwise(
    function: Function,
    *overrides: Any,
    fast: Mapping[str, Function] | Function | None = None,
    symbolic: Any = None,
    prepare: Function | None = None,
    **vjps: Function,
) -> Primitive:
    """A torch function that treats each element alike, and its derivative in each argument.

    ``prepare`` maps the arguments to those that are recorded.
    """
    name = function.__name__
    parameters = dict.fromkeys(vjps, REQUIRED)
    op = Primitive(
        name, function, parameters, vjps, fast=fast, jvp=ELEMENTWISE, symbolic=symbolic, prepare=prepare
    )
    return enter(op, (name, *overrides))


def enter(op: Primitive, overrides: Iterable[Any]) -> Primitive:
    PRIMITIVES[op.name] = op
    dispatch.register(op.__call__, overrides)  # the method: Python calls it faster than the object
    return op
