"""Unmodified ``torch.nn`` modules through this autograd.

A module finds its weights as attributes. Python looks for those in the instance's ``__dict__`` before torch's
``Module.__getattr__`` looks into ``_parameters``, so an entry there covers a parameter for a while without
changing it: ``model.parameters()``, the optimizer and the state dict still see the real one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from .reverse import Leaf
from .variable import BASE, Variable, tracked_variable


@contextmanager
def record(*modules: nn.Module) -> Iterator[None]:
    """Within the block the modules compute with variables; ``backward()`` then writes the real gradients::

        with autograd.record(model):
            loss = F.cross_entropy(model(x), y)
        loss.backward()  # adds to p.grad of the module's parameters
        optimizer.step()

    Parameters that the user has frozen stay constants. The block records, it need not contain the backward
    pass. Buffers such as running statistics are updated as ever. Threads that share a module must not record
    it at the same time.

    Args:
        modules: one or several; a parameter that several share gets one gradient.

    Raises:
        TypeError: something that is not a module.
        NotImplementedError: within the block, a torch function without an entry in the table of primitives.
    """
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"record() takes torch.nn modules, not {type(module).__name__}")
    parts = [named for module in modules for named in module.named_modules()]
    variables: dict[int, Variable] = {}
    for path, part in parts:
        for name, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in variables and is_trained(parameter):
                variables[id(parameter)] = variable_over(parameter, f"{path}.{name}" if path else name)
    uncover: list[Undo] = []
    try:
        for _, part in parts:
            _cover(part, part._parameters, variables, uncover)
        yield
    finally:
        _restore(uncover)


def variable_over(parameter: Tensor, name: str) -> Variable:
    """A leaf whose gradient goes to the parameter itself."""
    leaf = Leaf(parameter, parameter=parameter, name=name)
    variable = tracked_variable(parameter.detach(), BASE, leaf)
    leaf.owner = weakref.ref(variable)
    return variable


def is_trained(parameter: Tensor) -> bool:
    """The user's mark on a parameter: the one thing asked of torch's autograd; no derivative depends on it.

    A parameter frozen with ``requires_grad_(False)`` must keep its ``grad`` at ``None``, or an optimizer
    would move it. Torch has that mark nowhere else, and an argument ``frozen=`` would be a second truth.
    """
    return parameter.requires_grad and parameter.is_floating_point()


def functional_call(
    module: nn.Module, values: Mapping[str, Any], args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call a module with other parameters and buffers, which may be traced: transforms of modules::

        grad(lambda w: F.mse_loss(functional_call(model, w, (x,)), y))(dict(model.named_parameters()))

    Args:
        module: any module; it is left as it was.
        values: from names as in ``named_parameters()`` and ``named_buffers()``; the others stay its own.
        args: the positional arguments, or a single one.
        kwargs: the keyword arguments.

    Raises:
        KeyError: a name that the module does not have.
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name in values:
        if name not in own:
            raise KeyError(f"{type(module).__name__} has no parameter or buffer {name!r}")
    uncover: list[Undo] = []
    try:
        covers = {id(own[name]): value for name, value in values.items()}
        for part in module.modules():
            _cover(part, {**part._parameters, **part._buffers}, covers, uncover)
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
    finally:
        _restore(uncover)


# A namespace, a name in it, and what was there before.
Undo: TypeAlias = tuple[dict[str, Any], str, Any]
_NOTHING = object()


def _cover(
    part: nn.Module, own: Mapping[str, Tensor | None], covers: Mapping[int, Any], uncover: list[Undo]
) -> None:
    """Put values over a module's own tensors, by identity (not over those of its children)."""
    space = part.__dict__
    changes = [(name, covers[id(tensor)]) for name, tensor in own.items() if id(tensor) in covers]
    # A module may keep its weights in a list as well. Of torch's own only the recurrent ones do.
    if isinstance(part, nn.RNNBase) or not type(part).__module__.startswith("torch.nn."):
        for name, value in space.items():
            if type(value) is list and any(id(each) in covers for each in value):
                changes.append((name, [covers.get(id(each), each) for each in value]))
    for name, value in changes:
        uncover.append((space, name, space.get(name, _NOTHING)))
        space[name] = value


def _restore(uncover: list[Undo]) -> None:
    for space, name, before in reversed(uncover):
        if before is _NOTHING:
            space.pop(name, None)
        else:
            space[name] = before
