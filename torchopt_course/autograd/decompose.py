"""Functions of torch that are made of simpler ones: torch takes them apart, down to what the table knows.

``torch.diff`` is a difference of two slices, ``torch.cov`` a handful of products and sums, and torch has
hundreds more of that kind. None of them needs a derivative of its own. They are called as they are, with a
:class:`StandIn` for each traced value. Torch's parser reads the arguments, by position or by name; torch's
C++ code goes through its steps; each step that is no composite itself comes back as an operator of ATen. That
is looked up once more: in :data:`OPERATORS`, by its name in the table, or in torch's Python decompositions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import dispatch
from .refusals import ask, in_dtypes
from .traced import Traced, Value, raw
from .variable import lift

# An operator of ATen (an overload, or the name of all of them) -> what to call instead, with its arguments.
OPERATORS: dict[Any, Callable[..., Any]] = {}


# Where torch notes that a tensor is a view of another and how often it was written to. Torch switches it off
# when it asks for a step, having noted both for the stand-ins; for what is in them it is still to come.
NOTES_VIEWS = torch._C.DispatchKey.ADInplaceOrView

# How an operator that writes is performed; inplace.py puts it here.
WRITERS: list[Callable[[Any, str], Callable[..., Any]]] = []


def refuse(*names: str) -> None:
    """Operators of ATen that nothing is made of here."""
    for name in names:
        OPERATORS[name] = refused(name)


def refused(name: str) -> Callable[..., Any]:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise Unknown(f"aten.{name}")

    return unknown


def stands_for(*operators: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: this function is what these operators of ATen mean for traced values."""

    def enter(meaning: Callable[..., Any]) -> Callable[..., Any]:
        for operator in operators:
            OPERATORS[operator] = meaning
        return meaning

    return enter


class StandIn(Tensor):
    """Looks to torch like the tensor in a traced value; what is done with it comes to :func:`perform`."""

    value: Value
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # what is made of what is decided below that

    @staticmethod
    def __new__(cls, value: Value) -> StandIn:
        tensor = raw(value)
        if tensor.layout != torch.strided:
            raise NotImplementedError(f"no derivative is known for a tensor of layout {tensor.layout}")
        look = {name: getattr(tensor, name) for name in ("dtype", "layout", "device")}
        stand_in: StandIn = Tensor._make_wrapper_subclass(
            cls, tensor.shape, strides=tensor.stride(), storage_offset=tensor.storage_offset(), **look
        )
        stand_in.value = value
        return stand_in

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return perform(func, args, kwargs or {})


def through_torch(func: Any, args: Any, kwargs: Any) -> Any:
    """Call a torch function and let it be taken apart."""
    stand_ins: dict[int, StandIn] = {}
    written = args[0] if args and dispatch.writes(func) else None

    def wrap(x: Any) -> Any:
        if not (isinstance(x, Traced) or (isinstance(x, Tensor) and (x.requires_grad or x is written))):
            return x
        if id(x) not in stand_ins:
            # Torch records nothing while it asks for steps, so plain tensors become variables before.
            stand_ins[id(x)] = StandIn(x if isinstance(x, Traced) or x is written else lift(x))
        return stand_ins[id(x)]

    ask(func, args, kwargs)  # torch's steps are recorded by nobody
    given, named = pytree.tree_map(wrap, (args, kwargs))
    try:
        return pytree.tree_map(_value, func(*given, **named))
    except Unknown as unknown:
        raise NotImplementedError(dispatch.unknown(func, str(unknown))) from None
    except NotImplementedError as refusal:
        name = getattr(func, "__name__", str(func))
        if name in str(refusal):
            raise
        raise NotImplementedError(f"{name}: {refusal}") from None


class Unknown(NotImplementedError):
    """An operator without a meaning; the message is its name."""


def perform(operator: Any, args: Any, kwargs: Any) -> Any:
    """One step of a composite function: compute with the traced values, and go on with stand-ins."""
    meaning = OPERATORS.get(operator)
    if meaning is None:
        meaning = OPERATORS[operator] = meaning_of(operator)
    values, named = pytree.tree_map(_value, (args, kwargs))
    if args and type(args[0]) is Tensor and _writes_first(operator):  # into what torch has made on the way
        raise Unknown(str(operator))
    by_kernel = type(meaning) is MethodType or "as_strided" in operator._schema.name  # which copies mislead
    dtypes = None if by_kernel else ask(operator, values, named)
    if hasattr(meaning, "of_torch"):  # made of simpler operators in turn
        return in_dtypes(meaning(*args, **kwargs), dtypes)
    with torch._C._SetExcludeDispatchKeyGuard(NOTES_VIEWS, False):
        result = dispatch.bound(meaning, values, named, Unknown(str(operator)))
    if operator._schema.is_mutable and values and result is values[0]:
        return args[0]  # the stand-in of what was written to
    return pytree.tree_map(_stand_in, in_dtypes(result, dtypes))


def _writes_first(operator: Any) -> bool:
    alias = operator._schema.arguments[0].alias_info if operator._schema.is_mutable else None
    return alias is not None and bool(alias.is_write)


def meaning_of(operator: Any) -> Callable[..., Any]:
    """Where an operator leads to; looked up once."""
    name = operator._schema.name.split("::")[1]
    if name in OPERATORS:
        return OPERATORS[name]
    for prefix in ("", "linalg_", "special_"):
        for function in dispatch.named(name.removeprefix(prefix)) if name.startswith(prefix) else []:
            if function in dispatch.TABLE and dispatch.TABLE[function] not in dispatch.BODIES:
                return dispatch.TABLE[function]
    if operator._schema.is_mutable:
        return WRITERS[0](operator, name)
    return _decomposition(operator) or _constant(operator)


def _constant(operator: Any) -> Callable[..., Any]:
    """What gives integers or booleans has no derivative. For the rest nobody knows one."""

    def plainly(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(raw, (args, kwargs))
        result = operator(*args, **kwargs)
        if any(
            isinstance(y, Tensor) and (y.is_floating_point() or y.is_complex())
            for y in pytree.tree_leaves(result)
        ):
            raise Unknown(str(operator))
        return result

    return plainly


def _decomposition(operator: Any) -> Callable[..., Any] | None:
    """The operator in Python, as torch has it for its compiler."""
    from torch._decomp import decomposition_table

    written = decomposition_table.get(operator)
    if written is None and torch._C._dispatch_has_kernel_for_dispatch_key(
        operator.name(), "CompositeImplicitAutograd"
    ):
        written = operator.decompose
    if written is None:
        return None

    def run(*args: Any, **kwargs: Any) -> Any:
        return written(*args, **kwargs)

    run.of_torch = True  # type: ignore[attr-defined]
    return run


def _value(x: Any) -> Any:
    return x.value if isinstance(x, StandIn) else x


def _stand_in(x: Any) -> Any:
    """Also for a plain result, which may be written to later."""
    return StandIn(x) if isinstance(x, Tensor) and x.is_floating_point() else x


dispatch.TAKEN_APART.append(through_torch)
