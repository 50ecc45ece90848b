"""Unmodified ``torch.nn`` modules through this autograd.

A module finds its weights as attributes. Python looks for those in the instance's ``__dict__`` before torch's
``Module.__getattr__`` looks into ``_parameters``, so an entry there covers a parameter for a while without
changing it: ``model.parameters()``, the optimizer and the state dict still see the real one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from .reverse import Leaf
from .traced import Value
from .variable import BASE, Variable, tracked_variable


class record:
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

    def __init__(self, *modules: nn.Module) -> None:
        for module in modules:
            if not isinstance(module, nn.Module):
                raise TypeError(f"record() takes torch.nn modules, not {type(module).__name__}")
        self._modules = modules
        self._blocks: list[list[Undo]] = []  # what to restore at the end of each, the innermost last

    def __enter__(self) -> None:
        parts = named_parts(self._modules)
        variables: dict[int, Value] = {}
        uncover: list[Undo] = []
        self._blocks.append(uncover)
        try:
            for path, part in parts:
                space = part.__dict__
                for name, parameter in part._parameters.items():
                    if parameter is None:
                        continue
                    variable = variables.get(id(parameter))  # another module may have it too
                    if variable is None:
                        if not is_trained(parameter):
                            continue
                        variable = variables[id(parameter)] = variable_over(parameter, path + name)
                    _cover(space, name, variable, uncover)
            _cover_lists(parts, variables, uncover)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        _restore(self._blocks.pop())


def named_parts(modules: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    """The modules with all that they are made of, each once, and what to write before a parameter's name.

    In the order of ``named_modules()``, so that a shared parameter has the name that torch gives it.
    """
    parts: list[tuple[str, nn.Module]] = []
    known = set()
    waiting: list[tuple[str, nn.Module | None]] = [("", module) for module in reversed(modules)]
    while waiting:
        path, part = waiting.pop()
        if part is not None and id(part) not in known:
            known.add(id(part))
            parts.append((path, part))
            waiting += [(f"{path}{name}.", child) for name, child in reversed(part._modules.items())]
    return parts


def variable_over(parameter: Tensor, name: str) -> Variable:
    """A leaf whose gradient goes to the parameter itself."""
    leaf = Leaf(parameter, None, parameter, name)
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
    parts = named_parts([module])
    try:
        covers = {id(own[name]): value for name, value in values.items()}
        for _, part in parts:
            for name, tensor in (*part._parameters.items(), *part._buffers.items()):
                if id(tensor) in covers:
                    _cover(part.__dict__, name, covers[id(tensor)], uncover)
        _cover_lists(parts, covers, uncover)
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
    finally:
        _restore(uncover)


# A namespace, a name in it, and what was there before.
Undo: TypeAlias = tuple[dict[str, Any], str, Any]
_NOTHING = object()
# Torch's own modules have their weights as attributes, only the recurrent ones in a list as well.
_WITHOUT_LISTS = frozenset(
    kind for kind in vars(nn).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module)
    and kind is not nn.Module and not issubclass(kind, nn.RNNBase)
)  # fmt: skip


def _cover(space: dict[str, Any], name: str, value: Any, uncover: list[Undo]) -> None:
    uncover.append((space, name, space.get(name, _NOTHING)))
    space[name] = value


def _cover_lists(
    parts: Iterable[tuple[str, nn.Module]], covers: Mapping[int, Any], uncover: list[Undo]
) -> None:
    """A module may keep its weights in a list as well."""
    for _, part in parts:
        if type(part) in _WITHOUT_LISTS:
            continue
        for name, value in list(part.__dict__.items()):
            if type(value) is list and any(id(each) in covers for each in value):
                _cover(part.__dict__, name, [covers.get(id(each), each) for each in value], uncover)


def _restore(uncover: list[Undo]) -> None:
    for space, name, before in reversed(uncover):
        if before is _NOTHING:
            space.pop(name, None)
        else:
            space[name] = before
