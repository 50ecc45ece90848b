"""What a primitive is: a value and its derivatives, side by side, in one definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from .. import dispatch
from ..variable import Traced, Value, is_tensor, raw, tracked_variable

if TYPE_CHECKING:
    from ..reverse import Node

Rule: TypeAlias = Callable[..., Any]

PRIMITIVES: dict[str, Primitive] = {}

# How a JVP follows from what is there already.
LINEAR = "linear"  # f(tangents) is the tangent; arguments without one count as zero
MULTILINEAR = "multilinear"  # the sum of f with one argument at a time replaced by its tangent
ELEMENTWISE = "elementwise"  # the Jacobian is diagonal, so the VJP is the JVP


class Primitive:
    """A function of tensors that knows its derivatives.

    Called with plain tensors it just computes. Called with traced values it belongs to the highest of their
    levels, which asks for the value (of the values one level below) and then for what it needs:
    :meth:`pull` takes gradients from the result to the arguments, :meth:`push` takes tangents from the
    arguments to the result.
    """

    def __init__(
        self,
        name: str,
        forward: Rule,
        parameters: Mapping[str, Any],
        vjp: Mapping[str, Rule] | Rule,
        *,
        fast: Mapping[str, Rule] | Rule | None = None,
        jvp: Rule | str | None = None,
        aux: Sequence[str] = (),
        symbolic: Any = None,
        views: bool = False,
    ) -> None:
        self.name, self.forward, self.symbolic, self.views = name, forward, symbolic, views
        self.jvp: Rule | str | None = jvp
        self.parameters = tuple(parameters)
        self.variadic = any(kind is VARIADIC for kind in parameters.values())
        self.defaults = tuple(parameters.values())
        self.arity = -1 if self.variadic else len(self.parameters)
        self.no_aux = (None,) * len(aux)
        self._aux_names = tuple(aux)

        # Where a rule finds what it asks for by name: the arguments, the result ("ans"), what the forward
        # computation has left for it (aux), and "x_shape" and the like, which spare keeping x itself.
        count = len(self.parameters)
        names = [*self.parameters, "ans", *aux]
        names += [f"{p}_{what}" for p in self.parameters for what in ("shape", "dtype", "device")]
        self.slots = {} if self.variadic else {name: i for i, name in enumerate(names)}
        self._count = count

        self.joint = callable(vjp)
        rules: dict[str, Rule] = {"*": vjp} if callable(vjp) else dict(vjp)
        kernels: Mapping[str, Rule] = {next(iter(rules)): fast} if callable(fast) else fast or {}
        self.rules = {arg: self._asks(rule) for arg, rule in rules.items()}
        self.kernels = {arg: self._asks(kernel) for arg, kernel in kernels.items()}
        self.by_position = [self._puller(p) if p in rules else None for p in self.parameters]
        self._joint_puller = self._puller("*") if self.joint else None
        self._takes_all = self.variadic and any(
            parameter.kind is parameter.VAR_POSITIONAL
            for parameter in inspect.signature(self.rules["*"][0]).parameters.values()
        )
        self._kept: dict[int, list[int]] = {}

    # -- calling -----------------------------------------------------------------------------------------

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        if (len(args) != self.arity and not self.variadic) or kwargs:
            args = self.bind(args, kwargs)
        level = None
        for arg in args:
            if isinstance(arg, Traced) and (level is None or arg.level.depth > level.depth):
                level = arg.level
        if level is None:
            return self.evaluate(args)[0]
        return level.apply(self, args)

    def bind(self, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[Value, ...]:
        """All arguments in their order, defaults included."""
        for given in kwargs:
            if given not in self.parameters or given in self.parameters[: len(args)]:
                raise TypeError(f"{self.name}() got an unexpected argument {given!r}")
        if len(args) > len(self.parameters):
            raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments, not {len(args)}")
        rest = []
        for name, default in zip(self.parameters[len(args) :], self.defaults[len(args) :], strict=True):
            value = kwargs.get(name, default)
            if value is REQUIRED:
                raise TypeError(f"{self.name}() is missing the argument {name!r}")
            rest.append(value)
        return (*args, *rest)

    def evaluate(self, args: Sequence[Value]) -> tuple[Tensor, Sequence[Value]]:
        """The value for plain tensors, and what the computation leaves for the derivative."""
        result = self.forward(*args)
        return result if self._aux_names else (result, ())

    # -- reverse mode --------------------------------------------------------------------------------------

    def kept(self, mask: int) -> list[int]:
        """The slots that the derivative needs when the arguments in the bit mask are variables."""
        if mask not in self._kept:
            wanted: set[int] = set()
            for i, name in enumerate(self.parameters):
                variable = mask >> i & 1 if not (self.variadic and i == self._count - 1) else mask >> i
                if not variable:
                    continue
                if not self.joint and self.by_position[i] is None:
                    raise NotImplementedError(
                        f"{self} has no derivative with respect to {name!r}; pass {name}.detach()"
                    )
                for rules in (self.rules, self.kernels):
                    rule = rules.get("*" if self.joint else name)
                    wanted |= set(rule[1]) if rule else set()
            self._kept[mask] = sorted(wanted)
        return self._kept[mask]

    def keep(
        self, kept: Iterable[int], args: Sequence[Value], result: Value, aux: Sequence[Value]
    ) -> list[Value]:
        """Of all there is to know only the slots in `kept`; the rest is ``None`` and can be freed."""
        if self.variadic:
            return [*args] if self._takes_all else [*args[: self._count - 1]]
        count = self._count
        values: list[Value] = [None] * (count + 1 + len(aux) + 3 * count)
        for j in kept:
            if j < count:
                values[j] = args[j]
            elif j == count:
                values[j] = result
            elif j <= count + len(aux):
                values[j] = aux[j - count - 1]
            else:
                position, what = divmod(j - count - 1 - len(aux), 3)
                values[j] = getattr(args[position], ("shape", "dtype", "device")[what])
        return values

    def rewrap(self, values: list[Value], node: Node) -> list[Value]:
        """The saved values as variables again, so that a sweep through them is recorded."""
        from ..reverse import BASE

        values = list(values)
        for j, parent in enumerate(node.parents if self.variadic else (*node.parents, node)):
            if parent is not None and j < len(values) and values[j] is not None:
                values[j] = tracked_variable(values[j], BASE, parent)
        return values

    def pull(self, g: Value, values: list[Value], parents: Sequence[object]) -> Sequence[Value]:
        """Gradients of the arguments that have a parent, from the gradient of the result."""
        if self._joint_puller is not None:
            wanted = tuple(parent is not None for parent in parents)
            return self._joint_puller(g, values, wanted)  # type: ignore[no-any-return]
        return [
            None if parent is None else rule(g, values)  # type: ignore[misc]
            for parent, rule in zip(parents, self.by_position, strict=True)
        ]

    def _asks(self, rule: Rule) -> tuple[Rule, tuple[int, ...], bool]:
        """A rule with the slots of what it asks for, by the names of its parameters after the first, g."""
        names = list(inspect.signature(rule).parameters)[1:]
        wants = "wanted" in names
        if wants and names.pop(0) != "wanted":
            raise TypeError(f"{self.name}: a joint VJP is called with (g, wanted, ...)")
        slots = self.slots if not self.variadic else {p: i for i, p in enumerate(self.parameters[:-1])}
        if self.variadic and names and names[-1] == self.parameters[-1]:
            names.pop()  # `*tensors`: all of them
        for name in names:
            if name not in slots:
                raise TypeError(
                    f"the VJP of {self.name} asks for {name!r}, which is none of {', '.join(slots)}"
                )
        return rule, tuple(slots[name] for name in names), wants

    def _puller(self, key: str) -> Rule:
        """A function of (g, values[, wanted]) that runs the kernel if nothing is traced, else the rule."""
        rule, slots, wants = self.rules[key]
        kernel, kernel_slots, _ = self.kernels.get(key, (None, (), False))

        if self.variadic:
            rest = self._count - 1
            return lambda g, values, wanted: rule(g, wanted, *[values[j] for j in slots], *values[rest:])

        def by_rule(g: Value, values: list[Value], *wanted: tuple[bool, ...]) -> Value:
            return rule(g, *(wanted if wants else ()), *[values[j] for j in slots])

        if kernel is None:
            # Most rules ask for one value or none: spare them the list.
            if not slots and not wants:
                return lambda g, values: rule(g)
            if len(slots) == 1 and not wants:
                (only,) = slots
                return lambda g, values: rule(g, values[only])
            return by_rule
        made_below = range(self._count + 1, self._count + 1 + len(self.no_aux))

        def by_kernel(g: Value, values: list[Value], *wanted: tuple[bool, ...]) -> Value:
            if isinstance(g, Traced) or any(isinstance(values[j], Traced) for j in kernel_slots):
                return by_rule(g, values, *wanted)
            if any(values[j] is None for j in made_below):
                return by_rule(g, values, *wanted)
            return kernel(g, *wanted, *[values[j] for j in kernel_slots])

        return by_kernel

    def slot_name(self, j: int) -> str:
        """How an error calls a saved value."""
        if self.variadic:
            return f"argument {j}"
        name = next(name for name, slot in self.slots.items() if slot == j)
        return "its result" if name == "ans" else f"its argument {name!r}" if j < self._count else name

    # -- forward mode --------------------------------------------------------------------------------------

    def push(self, tangents: Sequence[Value], args: Sequence[Value], result: Value) -> Value:
        """The tangent of the result, from those of the arguments (``None`` for constants)."""
        self.kept(sum(1 << i for i, t in enumerate(tangents) if t is not None))  # refuses what has no rule
        moving = [i for i, tangent in enumerate(tangents) if tangent is not None]
        if self.jvp == LINEAR:
            return self(*[self._or_zero(i, *pair) for i, pair in enumerate(zip(tangents, args, strict=True))])
        if self.jvp == MULTILINEAR:
            return _sum(self(*args[:i], tangents[i], *args[i + 1 :]) for i in moving)
        if self.jvp == ELEMENTWISE:
            values = self.keep(range(self._count + 1), args, result, self.no_aux)
            return _sum(self.by_position[i](tangents[i], values) for i in moving)  # type: ignore[misc]
        if callable(self.jvp):
            zeros = [self._or_zero(i, *pair) for i, pair in enumerate(zip(tangents, args, strict=True))]
            known = dict(zip(self.parameters, args, strict=True))
            known |= {f"{name}_dot": zero for name, zero in zip(self.parameters, zeros, strict=True)}
            known["ans"] = result
            return self.jvp(**{name: known[name] for name in inspect.signature(self.jvp).parameters})
        return self._push_through_vjp(tangents, args, result, moving)

    def _or_zero(self, i: int, tangent: Value, arg: Value) -> Value:
        if tangent is not None:
            return tangent
        differentiable = self.joint or self.by_position[i] is not None
        return torch.zeros_like(raw(arg)) if differentiable and is_tensor(arg) else (
            0 if differentiable and isinstance(arg, int | float) and not self.joint else arg
        )  # fmt: skip

    def _push_through_vjp(
        self, tangents: Sequence[Value], args: Sequence[Value], result: Value, moving: Sequence[int]
    ) -> Value:
        """A VJP is linear in g, with the transposed Jacobian as its matrix. Transpose it once more."""
        from ..reverse import Leaf, ReverseLevel, fit, sweep

        with ReverseLevel() as level:
            leaf = Leaf(result)
            g = tracked_variable(torch.zeros_like(raw(result)), level, leaf)
            kept = self.kept(sum(1 << i for i in moving))
            values = self.keep(kept, args, result, self.no_aux)
            parents = [leaf if i in moving else None for i in range(len(args))]
            shares = self.pull(g, values, parents)
        # A share that does not belong to the level does not depend on g: the Jacobian is zero there.
        seeds = []
        for i in moving:
            share = shares[i]
            if isinstance(share, Traced) and share.level is level:
                shape_of = Leaf(share)
                seeds.append((share.node, fit(tangents[i].expand(shape_of.shape), shape_of, self)))
        arrived: dict[Any, Value] = {}
        sweep(seeds, arrived.__setitem__, retain_graph=False)
        return arrived.get(leaf, torch.zeros_like(raw(result)))

    def __repr__(self) -> str:
        return self.name


def _sum(terms: Iterable[Value]) -> Value:
    first, *others = terms
    for term in others:
        first = first + term
    return first


class _Mark:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


REQUIRED, VARIADIC = _Mark("required"), _Mark("any number")


def primitive(
    *overrides: Any,
    vjp: Rule | None = None,
    fast: Mapping[str, Rule] | Rule | None = None,
    jvp: Rule | str | None = None,
    aux: Sequence[str] = (),
    symbolic: Any = None,
    views: bool = False,
    **vjps: Rule,
) -> Callable[[Rule], Primitive]:
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
        symbolic: the sympy function of the same meaning.
        views: the result may share memory with an argument.

    Raises:
        TypeError: a rule that asks for something that does not exist.
    """

    def define(forward: Rule) -> Primitive:
        parameters = {}
        for name, parameter in inspect.signature(forward).parameters.items():
            required = parameter.default is inspect.Parameter.empty
            parameters[name] = REQUIRED if required else parameter.default
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                parameters[name] = VARIADIC
        for name in vjps:
            if name not in parameters:
                raise TypeError(f"{forward.__name__}() has no argument {name!r} to differentiate")
        op = Primitive(
            forward.__name__, forward, parameters, vjp or vjps,
            fast=fast, jvp=jvp, aux=aux, symbolic=symbolic, views=views,
        )  # fmt: skip
        op.__doc__ = forward.__doc__
        return enter(op, overrides)

    return define


def elementwise(
    function: Rule,
    *overrides: Any,
    fast: Mapping[str, Rule] | Rule | None = None,
    symbolic: Any = None,
    **vjps: Rule,
) -> Primitive:
    """A torch function that treats each element alike, and its derivative in each argument."""
    name = function.__name__
    parameters = dict.fromkeys(vjps, REQUIRED)
    op = Primitive(name, function, parameters, vjps, fast=fast, jvp=ELEMENTWISE, symbolic=symbolic)
    return enter(op, (name, *overrides))


def enter(op: Primitive, overrides: Iterable[Any]) -> Primitive:
    PRIMITIVES[op.name] = op
    dispatch.register(op, overrides)
    return op
