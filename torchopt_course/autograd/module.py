"""Unmodified ``torch.nn`` modules through this autograd.

:class:`record` watches torch's functions: those that get a tensor that requires a gradient are recorded here.
:func:`functional_call` calls a module with other parameters. A module finds its weights as attributes, and
Python looks for those in the instance's ``__dict__`` before torch's ``Module.__getattr__`` looks into
``_parameters``; so an entry there covers a parameter for a while without changing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MethodType, MethodWrapperType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import dispatch
from .dispatch import DIFFERENTIABLE, TABLE
from .distributed import refuse_sharded
from .foreign import functorch_is_on
from .packing import refuse_packing
from .traced import Traced, recording
from .variable import Variable, is_recorded, lift


class record(TorchFunctionMode):
    """Within the block torch's functions compute with variables; ``backward()`` writes the real gradients::

        with autograd.record(model):
            loss = F.cross_entropy(model(x), y)
        loss.backward()  # adds to p.grad of the module's parameters
        optimizer.step()

    Each function that gets a tensor with ``requires_grad``, be it a parameter of the modules or any other,
    is recorded by this autograd instead of torch's. Parameters that the user has frozen are constants. The
    block records, it need not contain the backward pass. Buffers such as running statistics are updated as
    ever.

    Args:
        modules: whose parameters have their names in graphs and messages.

    Raises:
        TypeError: something that is not a module.
        NotImplementedError: a module whose parameters are sharded (FSDP); saved_tensors_hooks of the user;
            within the block, of a variable: a torch function without an entry in the table of primitives.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        for module in modules:
            if not isinstance(module, nn.Module):
                raise TypeError(f"record() takes torch.nn modules, not {type(module).__name__}")
            refuse_sharded(module)
        self._modules = modules
        self._names: dict[int, str] | None = None

    def __enter__(self) -> None:
        refuse_packing()
        recording.blocks = (*recording.blocks, self)  # a new tuple: leaves keep theirs, for their names
        super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        recording.blocks = recording.blocks[:-1]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and type(args[0]) is Variable:
            return Traced.__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        if functorch_is_on() or recording.left_to_torch:  # torch's own graph, which counts afterwards
            return func(*args, **kwargs)
        if torch.is_grad_enabled() and (type(func) is not MethodWrapperType or func in DIFFERENTIABLE):
            meaning = TABLE.get(func) or dispatch.look_up(func)
            if meaning is not None and (is_recorded(args) or (kwargs and is_recorded(kwargs.values()))):
                if getattr(func, "__module__", "") == "torch.nn.init":
                    return func(*args, **kwargs)
                if type(meaning) is not MethodType:  # not a primitive, but written in terms of them
                    given = lifted(args)
                    if kwargs.get("inplace") or dispatch.writes(func):
                        given[:1] = args[:1]  # the tensor itself, which becomes a variable
                    args, kwargs = tuple(given), dict(zip(kwargs, lifted(kwargs.values()), strict=True))
                return Traced.__torch_function__(func, types, args, kwargs)
        return func(*args, **kwargs)

    def name_of(self, tensor: Tensor | None) -> str:
        """How a parameter is called; "" for any other tensor."""
        if self._names is None:
            self._names = {
                id(parameter): path + name
                for path, part in reversed(named_parts(self._modules))
                for name, parameter in part._parameters.items()
            }
        return self._names.get(id(tensor), "")


def lifted(args: Iterable[Any]) -> list[Any]:
    """Plain tensors that require a gradient as variables."""
    return [
        lift(arg) if isinstance(arg, Tensor) and not isinstance(arg, Traced) and arg.requires_grad
        else type(arg)(lifted(arg)) if type(arg) in (list, tuple)
        else arg
        for arg in args
    ]  # fmt: skip


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
