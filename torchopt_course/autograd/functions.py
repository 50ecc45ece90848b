"""``torch.autograd.Function``, ``torch.autograd.backward`` and ``torch.autograd.grad`` of variables.

Torch does not ask their arguments whether they override it, as it does everywhere else, or the arguments are
plain tensors that torch made of variables. So importing this package puts a question of ours before the
three; without variables torch goes on. A user's Function is one operation, with the derivative that he wrote.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.autograd import Function
from torch.autograd.graph import GradientEdge
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

from . import dispatch
from .backward import backward_all, seeds_of
from .backward import grad as grad_of_variables
from .dispatch import TABLE
from .foreign import Part, TorchNode, reaches_variables, stand_for
from .switched_off import is_constant
from .traced import Traced, Value, raw, recording
from .variable import BASE, Variable, lift, tracked_variable

_by_torch = Function.__dict__["apply"]


def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
    """Call a Function; if an argument is a variable, record it."""
    by_torch = _by_torch.__get__(None, cls)
    given = (*args, *kwargs.values())
    recorded = any(isinstance(arg, Traced) for arg in given)
    if not torch.is_grad_enabled():
        return by_torch(*[raw(arg) for arg in args], **{key: raw(arg) for key, arg in kwargs.items()})
    if issubclass(cls, CheckpointFunction) and (recorded or recording.blocks):
        run_function, _preserve_rng_state, *inputs = args
        return run_function(*inputs)  # computed once, and kept: checkpointing saves memory, not values
    if not recorded:
        return _left_to_torch(by_torch, *args, **kwargs)
    # One that writes into its arguments may not write into a leaf.
    names = {name for part in (cls.forward, cls.setup_context) for name in part.__code__.co_names}
    return _one_operation(
        by_torch, f"torch.autograd.Function {cls.__name__}", "mark_dirty" in names, args, kwargs
    )


def _one_operation(by_torch: Callable[..., Any], name: str, writes: bool, args: Any, kwargs: Any) -> Any:
    """What torch records of this call is one operation of ours."""
    flat, form = pytree.tree_flatten((args, kwargs))
    plain = [_plain(name, arg, writes) if isinstance(arg, Traced) else arg for arg in flat]
    plain_args, plain_kwargs = pytree.tree_unflatten(plain, form)
    outputs, structure = pytree.tree_flatten(_left_to_torch(by_torch, *plain_args, **plain_kwargs))
    numbers = [i for i, y in enumerate(outputs) if isinstance(y, Tensor) and y.requires_grad]
    variables = [lift(outputs[i]) for i in numbers[:1]] if len(numbers) < 2 else _parts(outputs, numbers)
    for i, variable in zip(numbers, variables, strict=True):
        written = [x for x, given in zip(flat, plain, strict=True) if given is outputs[i]]
        outputs[i] = written[0].copy_(variable) if written else variable  # ctx.mark_dirty
    return pytree.tree_unflatten(outputs, structure)


def _left_to_torch(by_torch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A forward pass may build a graph of torch's for itself, and ask torch for its gradients later."""
    before, recording.left_to_torch = recording.left_to_torch, True
    try:
        return by_torch(*args, **kwargs)
    finally:
        recording.left_to_torch = before


def _parts(outputs: list[Any], numbers: list[int]) -> list[Variable]:
    node = TorchNode([outputs[i] for i in numbers])
    parts = [Part(node, place, outputs[i]) for place, i in enumerate(numbers)]
    return [tracked_variable(outputs[i].detach(), BASE, part) for i, part in zip(numbers, parts, strict=True)]


def _operator_of_a_library(func: Any) -> Callable[..., Any] | None:
    """``torch.ops.torchvision.roi_align``, and what ``torch.library`` has made: they have derivatives."""
    if not isinstance(func, OpOverload | OpOverloadPacket):
        return None
    overload = func if isinstance(func, OpOverload) else getattr(func, func.overloads()[0])
    if overload.namespace in ("aten", "prim", "prims") or overload._schema.is_mutable:
        return None

    def recorded(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            plain_args, plain_kwargs = pytree.tree_map(raw, (args, kwargs))
            return func(*plain_args, **plain_kwargs)
        return _one_operation(func, f"torch.ops.{func}", False, args, kwargs)

    return recorded


dispatch.FINDERS.append(_operator_of_a_library)


def _plain(name: str, arg: Value, writes: bool) -> Tensor:
    """What torch is given for a variable: its tensor, whose gradient comes back to it."""
    if is_constant(arg):
        return raw(arg).detach()  # type: ignore[no-any-return]
    if not isinstance(arg, Variable) or arg.level is not BASE:
        raise NotImplementedError(
            f"{name} in a transform (grad, vjp, jvp, ...), which cannot see into its backward. Define it by "
            "autograd.primitive, or use Variable and backward()"
        )
    tensor: Tensor = arg.data.detach().requires_grad_()
    stand_for(tensor, arg.node)
    with torch._C.DisableTorchFunction():  # torch's clone, also within record()
        return tensor.clone() if writes else tensor


Function.apply = classmethod(apply)

_torch_backward = torch.autograd.backward


@functools.wraps(_torch_backward)
def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    outputs = [tensors] if isinstance(tensors, Tensor | GradientEdge) else list(tensors)
    if not any(isinstance(tensor, Traced) for tensor in outputs) and not reaches_variables(outputs):
        return _torch_backward(tensors, grad_tensors, retain_graph, create_graph, grad_variables, inputs)
    seeds = seeds_of(grad_tensors, len(outputs))
    return backward_all(outputs, seeds, retain_graph, create_graph, inputs)


torch.autograd.backward = backward

_torch_grad = torch.autograd.grad


@functools.wraps(_torch_grad)
def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    given = [outputs] if isinstance(outputs, Tensor | GradientEdge) else list(outputs)
    if reaches_variables(given):
        return grad_of_variables(outputs, inputs, *args, **kwargs)
    return _torch_grad(outputs, inputs, *args, **kwargs)


torch.autograd.grad = grad
TABLE[grad] = grad_of_variables
