"""Reverse mode as functions of functions, named as in torch.func; ``value_and_grad`` is JAX's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .foreign import refuse_past_the_table
from .graph_hooks import one_pass
from .packing import refuse_packing
from .reverse import Leaf, sweep
from .traced import Level, Traced, Value, is_tensor, raw
from .variable import ReverseLevel, Variable, lift, tracked_variable

Argnums = int | tuple[int, ...]


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of ``func(*primals)`` and a function that pulls gradients back from it.

    Args:
        func: takes tensors, or tuples, lists and dicts of them, and returns such.
        primals: its arguments.
        has_aux: ``func`` returns ``(output, aux)``, and ``aux`` is handed out unchanged.

    Returns:
        ``(output, vjp_fn)``, with ``has_aux`` ``(output, vjp_fn, aux)``. ``vjp_fn(g)``, g structured like the
        output, gives the tuple of gradients of the primals; it may be called any number of times.

    Raises:
        TypeError: a primal that is not a floating-point tensor.
        RuntimeError: in ``vjp_fn``: g has another structure, shape or dtype than the output.
    """
    refuse_packing()
    leaves, spec = pytree.tree_flatten(primals)
    leaves = check_tensors(leaves, "vjp: primals")
    if not torch.is_grad_enabled():
        # no_grad around a transform means: do not record this for anybody else.
        leaves = [constant(x) for x in leaves]
    with ReverseLevel() as level, torch.enable_grad():
        nodes = [Leaf(x) for x in leaves]
        inputs = [tracked_variable(x, level, node) for x, node in zip(leaves, nodes, strict=True)]
        output = func(*pytree.tree_unflatten(inputs, spec))
    aux: tuple[Any, ...] = ()
    if has_aux:
        output, extra = output
        aux = (pytree.tree_map(lambda x: _value(x, level), extra),)
    outputs, out_spec = pytree.tree_flatten(output)
    outputs = check_tensors(outputs, "vjp: outputs", detach=False)
    refuse_past_the_table(outputs)
    ends = [(x.node if _is_of(x, level) else None, Leaf(x)) for x in outputs]

    def vjp_fn(*cotangents: Any) -> Any:
        given, given_spec = pytree.tree_flatten(cotangents[0] if len(cotangents) == 1 else cotangents)
        if given_spec != out_spec:
            raise RuntimeError(f"vjp_fn: gradients of structure {given_spec}, but the output's is {out_spec}")
        given = check_tensors(given, "vjp_fn: gradients")
        for g, (_, look) in zip(given, ends, strict=True):
            if g.shape != look.shape or g.dtype != look.dtype:
                raise RuntimeError(
                    f"vjp_fn: a gradient of shape {tuple(g.shape)}, {g.dtype} for an output of shape "
                    f"{tuple(look.shape)}, {look.dtype}"
                )
        with one_pass():
            arrived = sweep((node, g) for g, (node, _) in zip(given, ends, strict=True) if node is not None)
        gradients = [
            arrived[node] if node in arrived else torch.zeros_like(raw(x))
            for node, x in zip(nodes, leaves, strict=True)
        ]
        return pytree.tree_unflatten(gradients, spec)

    return (pytree.tree_map(lambda x: _value(x, level), output), vjp_fn, *aux)


def value_and_grad(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """As :func:`grad`, but with the value: ``(value, gradient)``, or ``((value, aux), gradient)``.

    Arguments and errors as there.
    """

    @wraps(func)
    def both(*args: Any, **kwargs: Any) -> Any:
        def of_chosen(inputs: Any) -> Any:
            output = func(*unchosen(args, argnums, inputs), **kwargs)
            value = output[0] if has_aux else output
            if not is_tensor(value) or value.dim() != 0:
                what = f"shape {tuple(value.shape)}" if is_tensor(value) else type(value).__name__
                raise RuntimeError(
                    f"grad: the function must return a single number (a 0-d tensor), not {what}"
                )
            return output

        inputs = chosen(args, argnums)
        check_tensors(pytree.tree_leaves(inputs), "grad: arguments")
        value, vjp_fn, *aux = vjp(of_chosen, inputs, has_aux=has_aux)
        (gradient,) = vjp_fn(torch.ones_like(raw(value)))
        return ((value, *aux) if has_aux else value), gradient

    return both


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of the scalar function ``func``. ``grad(grad(f))`` is f''.

    Args:
        func: returns a 0-d tensor.
        argnums: which positional argument, or a tuple of several; each a tensor or a tuple, list or dict of
            tensors.
        has_aux: ``func`` returns ``(output, aux)``; then the result is ``(gradient, aux)``.

    Raises:
        RuntimeError: the function returns something else than a single number.
        TypeError: a chosen argument that is not made of floating-point tensors.
        ValueError: ``argnums`` out of range.
    """
    both = value_and_grad(func, argnums, has_aux)

    @wraps(func)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, result = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return gradient


def jacrev(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``func``, row by row, each by a sweep in reverse mode.

    Cheaper than :func:`~torchopt_course.autograd.forward.jacfwd` when there are fewer results than inputs.
    Arguments and result as there.
    """

    def jacobian(*args: Any) -> Any:
        inputs = chosen(args, argnums)
        check_tensors(pytree.tree_leaves(inputs), "jacrev: arguments")
        output, vjp_fn, *aux = vjp(
            lambda inputs_: func(*unchosen(args, argnums, inputs_)), inputs, has_aux=has_aux
        )
        outputs, out_spec = pytree.tree_flatten(output)
        in_leaves, in_spec = pytree.tree_flatten(inputs)
        zeros = [torch.zeros_like(raw(y)) for y in outputs]
        per_output = []
        for k, y in enumerate(outputs):
            rows = [
                pytree.tree_leaves(vjp_fn(pytree.tree_unflatten([*zeros[:k], e, *zeros[k + 1 :]], out_spec)))
                for e in basis(y)
            ]
            blocks = [
                torch.stack(each).reshape((*y.shape, *x.shape))
                if rows
                else raw(x).new_zeros((*y.shape, *x.shape))
                for x, each in zip(
                    in_leaves, zip(*rows, strict=True) if rows else [()] * len(in_leaves), strict=True
                )
            ]
            per_output.append(pytree.tree_unflatten(blocks, in_spec))
        result = pytree.tree_unflatten(per_output, out_spec)
        return (result, *aux) if has_aux else result

    return jacobian


# -- arguments -----------------------------------------------------------------------------------------------


def chosen(args: Sequence[Any], argnums: Argnums) -> Any:
    """The arguments to differentiate: one, or a tuple."""
    for n in (argnums,) if isinstance(argnums, int) else argnums:
        if not -len(args) <= n < len(args):
            raise ValueError(f"argnums is {argnums}, but there are {len(args)} positional arguments")
    return args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)


def unchosen(args: Sequence[Any], argnums: Argnums, inputs: Any) -> list[Any]:
    """All arguments, the chosen ones replaced."""
    result = list(args)
    for n, x in zip(*([[argnums], [inputs]] if isinstance(argnums, int) else [argnums, inputs]), strict=True):
        result[n] = x
    return result


def check_tensors(values: Sequence[Any], what: str, detach: bool = True) -> list[Value]:
    for value in values:
        if not is_tensor(value):
            raise TypeError(
                f"{what} must be tensors, not {type(value).__name__} ({value!r}); pass torch.tensor(...)"
            )
        if detach and not value.dtype.is_floating_point:
            raise TypeError(f"{what} must be real floating-point tensors, not {value.dtype}")
    if not detach:
        return list(values)
    return [lift(x) if not isinstance(x, Traced) and x.requires_grad else x for x in values]


def basis(x: Value) -> Iterator[Tensor]:
    """All tensors shaped like x with a single 1."""
    zeros = torch.zeros_like(raw(x), memory_format=torch.contiguous_format)
    for i in range(zeros.numel()):
        one = zeros.clone()
        one.view(-1)[i] = 1
        yield one


def constant(x: Value) -> Value:
    """The same value, for reverse mode a constant; tangents of forward mode stay."""
    return x.without_reverse() if isinstance(x, Traced) else x


def _is_of(x: Any, level: Level) -> bool:
    return isinstance(x, Variable) and x.level is level


def _value(x: Any, level: Level) -> Any:
    return x.data if _is_of(x, level) else x
