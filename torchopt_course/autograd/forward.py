"""Forward mode: each value carries its derivative along one direction, from the inputs to the result.

One run of the function gives one column of the Jacobian, whatever the number of results; reverse mode gives
one row, whatever the number of inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .dispatch import means
from .foreign import refuse_past_the_table
from .memory import shares
from .primitives.table import ELEMENTWISE, LINEAR, MULTILINEAR, Primitive
from .reverse import Leaf, fit, sweep
from .traced import Level, Traced, Value, hold, in_memory, is_tensor, raw
from .transforms import Argnums, basis, check_tensors, chosen, constant, grad, jacrev, unchosen
from .variable import ReverseLevel, Variable, tracked_variable
from .views import Follows

if TYPE_CHECKING:
    from .primitives.rules import Plan


class Dual(Traced):
    """A value x + ẋ ε with ε² = 0, so that f(x + ẋ ε) = f(x) + f'(x) ẋ ε. Made by :func:`jvp`."""

    tangent: Value
    is_forward_mode = True

    def __new__(cls, data: Value, tangent: Value, level: Level) -> Dual:
        dual = hold(cls, data)
        dual.tangent, dual.level = tangent, level
        return dual

    def without_reverse(self) -> Dual:
        return Dual(constant(self._data), constant(self.tangent), self.level)

    def moved(self, memory: Tensor) -> Dual:
        return Dual(in_memory(self._data, memory), self.tangent, self.level)

    def adopt(self, other: Traced) -> None:
        assert isinstance(other, Dual)
        self._data, self.level = in_memory(other._data, raw(self)), other.level
        self.tangent = other.tangent

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Dual({self.data!r}, tangent={self.tangent!r})"


class DualView(Follows, Dual):
    """A dual number that shares the memory of another one."""

    @property
    def tangent(self) -> Value:
        self.follow()
        return self._past

    @tangent.setter
    def tangent(self, tangent: Value) -> None:
        self._past = tangent


class ForwardLevel(Level):
    """Computes the tangent of every result on the way."""

    __slots__ = ()

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        self.check_open(op)
        refuse_past_the_table(args)
        mine = [isinstance(arg, Dual) and arg.level is self for arg in args]
        values = [arg._data if own else arg for arg, own in zip(args, mine, strict=True)]
        tangents = [arg.tangent if own else None for arg, own in zip(args, mine, strict=True)]
        result = op(*values)
        tangent = like(push(op, tangents, values, result), result, op)
        if op.views and mine[0] and shares(raw(result), raw(values[0])):
            return DualView.taken(args[0], (op, args[1:]), result, tangent)
        return Dual(result, tangent, self)


def push(op: Primitive, tangents: Sequence[Value], args: Sequence[Value], result: Value) -> Value:
    """The tangent of the result, from those of the arguments (``None`` for constants)."""
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]
    plan = op.plan(sum(1 << len(args) - 1 - i for i in moving) | 1 << len(args))
    if op.jvp == LINEAR:
        return op(*_filled(op, tangents, args))
    if op.jvp == MULTILINEAR:
        return _sum(op(*args[:i], tangents[i], *args[i + 1 :]) for i in moving)
    known = [*args, result, *op.no_aux]
    if op.jvp == ELEMENTWISE:
        saved, _ = plan.save(known)
        return _sum(puller(tangents[i], saved) for i, puller in zip(moving, plan.pullers, strict=True))
    if callable(op.jvp):
        given = dict(zip((*op.parameters, "ans"), known, strict=False))
        given |= {
            f"{name}_dot": x for name, x in zip(op.parameters, _filled(op, tangents, args), strict=True)
        }
        return op.jvp(**{name: given[name] for name in inspect.signature(op.jvp).parameters})
    return _push_through_vjp(op, plan, [tangents[i] for i in moving], known, result)


def _filled(op: Primitive, tangents: Sequence[Value], args: Sequence[Value]) -> list[Value]:
    """The tangents; zero for arguments that stand still, and those without a derivative as they are."""

    def zero(i: int, arg: Value) -> Value:
        if not op.differentiates(i):
            return arg
        if is_tensor(arg):
            return torch.zeros_like(raw(arg))
        return 0 if isinstance(arg, int | float) and not op.joint else arg

    return [zero(i, arg) if t is None else t for i, (t, arg) in enumerate(zip(tangents, args, strict=True))]


def _push_through_vjp(
    op: Primitive, plan: Plan, tangents: Sequence[Value], known: Sequence[Value], result: Value
) -> Value:
    """A VJP is linear in g, with the transposed Jacobian as its matrix. Transpose it once more."""
    with ReverseLevel() as level:
        leaf = Leaf(result)
        g = tracked_variable(torch.zeros_like(raw(result)), level, leaf)
        shares = plan.pull(g, plan.save(known)[0])
    # A share that does not belong to the level does not depend on g: the Jacobian is zero there.
    seeds = [
        (share.node, fit(tangent.expand(share.shape), Leaf(share), op))
        for share, tangent in zip(shares, tangents, strict=True)
        if isinstance(share, Variable) and share.level is level
    ]
    return sweep(seeds).get(leaf, torch.zeros_like(raw(result)))


def _sum(terms: Iterable[Value]) -> Value:
    first, *others = terms
    for term in others:
        first = first + term
    return first


def like(tangent: Value, result: Value, op: object) -> Value:
    """A tangent must look like the value it belongs to: broadcast, promote, refuse the rest."""
    if tangent.dtype != result.dtype:
        tangent = tangent.to(result.dtype)
    if raw(tangent).is_cpu != raw(result).is_cpu:  # that of a number of the CPU next to tensors of a GPU
        tangent = tangent.to(raw(result).device)
    if tangent.shape != result.shape:
        try:
            tangent = tangent.expand(result.shape)
        except RuntimeError:
            raise RuntimeError(
                f"the JVP of {op} gave a tangent of shape {tuple(tangent.shape)} for a result of shape "
                f"{tuple(result.shape)}"
            ) from None
    return tangent


def jvp(
    func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], *, strict: bool = False,
    has_aux: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """The value of ``func(*primals)`` and its derivative along ``tangents``.

    Args:
        func: takes tensors, or tuples, lists and dicts of them, and returns such.
        primals: where.
        tangents: in which direction; of the same structure and shapes.
        strict: refuse results that do not depend on the primals, instead of giving zeros.
        has_aux: ``func`` returns ``(output, aux)``, and ``aux`` is handed out unchanged.

    Returns:
        ``(output, tangent)``, with ``has_aux`` ``(output, tangent, aux)``.

    Raises:
        TypeError: not a tuple; something that is not a floating-point tensor.
        RuntimeError: tangents of another structure, shape or dtype than the primals.
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple):
            raise TypeError(
                f"jvp: {name} must be a tuple, one entry for each argument, not {type(given).__name__}"
            )
    leaves, spec = pytree.tree_flatten(primals)
    directions, tangent_spec = pytree.tree_flatten(tangents)
    if spec != tangent_spec:
        raise RuntimeError(f"jvp: primals and tangents differ in structure: {spec} and {tangent_spec}")
    leaves, directions = check_tensors(leaves, "jvp: primals"), check_tensors(directions, "jvp: tangents")
    for x, x_dot in zip(leaves, directions, strict=True):
        if x.shape != x_dot.shape or x.dtype != x_dot.dtype:
            raise RuntimeError(
                f"jvp: a tangent of shape {tuple(x_dot.shape)}, {x_dot.dtype} for a primal of shape "
                f"{tuple(x.shape)}, {x.dtype}"
            )
    with ForwardLevel() as level:
        duals = [Dual(x, x_dot, level) for x, x_dot in zip(leaves, directions, strict=True)]
        output = func(*pytree.tree_unflatten(duals, spec))
    aux: tuple[Any, ...] = ()
    if has_aux:
        output, extra = output
        aux = (pytree.tree_map(lambda x: _primal(x, level), extra),)
    refuse_past_the_table(pytree.tree_leaves(output))
    if strict and not all(_is_of(x, level) for x in pytree.tree_leaves(output)):
        raise RuntimeError("jvp: strict=True, but an output does not depend on the primals")
    return (
        pytree.tree_map(lambda x: _primal(x, level), output),
        pytree.tree_map(lambda x: x.tangent if _is_of(x, level) else torch.zeros_like(raw(x)), output),
        *aux,
    )


@means("_make_dual", checked=True)
def _make_dual(*args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        "torch.autograd.forward_ad does not see how variables are made; use autograd.jvp"
    )


def _is_of(x: Any, level: Level) -> bool:
    return isinstance(x, Dual) and x.level is level


def _primal(x: Any, level: Level) -> Any:
    return x.data if _is_of(x, level) else x


def jacfwd(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``func``, column by column, each by a run in forward mode.

    Cheaper than :func:`jacrev` when there are fewer inputs than results.

    Args:
        func: takes and returns tensors, or tuples, lists and dicts of them.
        argnums: which positional argument, or a tuple of several.
        has_aux: ``func`` returns ``(output, aux)``; then the result is ``(jacobian, aux)``.

    Returns:
        For each tensor of the output (in its structure) a tensor for each one of the chosen arguments (in
        theirs), of shape ``(*output.shape, *argument.shape)``.
    """

    def jacobian(*args: Any) -> Any:
        inputs = chosen(args, argnums)
        leaves, spec = pytree.tree_flatten(inputs)
        leaves = check_tensors(leaves, "jacfwd: arguments")
        zeros = [torch.zeros_like(raw(x)) for x in leaves]
        aux: tuple[Any, ...] = ()
        blocks: list[list[Value]] = []  # for each input, for each output
        out_spec: Any = None
        for i, x in enumerate(leaves):
            columns = []
            for direction in basis(x):
                along = pytree.tree_unflatten([*zeros[:i], direction, *zeros[i + 1 :]], spec)
                _, column, *aux_ = jvp(
                    lambda inputs_: func(*unchosen(args, argnums, inputs_)),
                    (inputs,),
                    (along,),
                    has_aux=has_aux,
                )
                aux = tuple(aux_)
                outputs, out_spec = pytree.tree_flatten(column)
                columns.append(outputs)
            if not columns:
                raise RuntimeError("jacfwd: an argument without elements")
            blocks.append(
                [
                    torch.stack(each, -1).reshape((*each[0].shape, *x.shape))
                    for each in zip(*columns, strict=True)
                ]
            )
        per_output = [
            pytree.tree_unflatten([block[k] for block in blocks], spec) for k in range(len(blocks[0]))
        ]
        result = pytree.tree_unflatten(per_output, out_spec)
        return (result, *aux) if has_aux else result

    return jacobian


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that gives all second derivatives of ``func``: forward over reverse, as in torch.func.

    Arguments as of :func:`jacfwd`. Of one argument the result has the shape
    ``(*output.shape, *argument.shape, *argument.shape)``; of a tuple it is a tuple of tuples of such.
    """
    return jacfwd(jacrev(func, argnums), argnums)


def hvp(func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """The Hessian of a scalar ``func`` times ``tangents``, without the Hessian: forward over reverse.

    Arguments and errors as of :func:`jvp`, but that ``func`` returns a 0-d tensor. The result is a tuple
    with one entry for each argument, like the primals.
    """
    gradient = grad(func, argnums=tuple(range(len(primals))))
    return jvp(gradient, primals, tangents)[1]
