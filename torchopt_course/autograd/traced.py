"""A value that is watched: what it holds, how it behaves like a torch tensor, and which trace it belongs to.

A value is *traced* while somebody wants to know what is done to it. Four kinds of traced values exist:

- :class:`~torchopt_course.autograd.variable.Variable` remembers the operation that made it (reverse mode),
- :class:`~torchopt_course.autograd.forward.Dual` carries its derivative along (forward mode),
- :class:`~torchopt_course.autograd.symbolic.Symbol` is a formula of sympy's (symbolic differentiation),
- :class:`~torchopt_course.autograd.written.Written` knows the text by which it is computed (trace tables).

Everything else is a constant, and constants are plain tensors and numbers. Each traced value belongs to a
*level*: one run of one transform. ``grad(grad(f))`` runs f on level 2, whose values hold values of level 1,
which hold tensors. An operation always belongs to the highest level among its arguments and sees the others
as constants, so derivatives of different transforms are never confused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from . import autocast, dispatch
from .dispatch import TABLE
from .memory import InMemory, no_plain_tensor

_set_data: Any = torch._C.TensorBase.data.__set__  # type: ignore[attr-defined]

Value: TypeAlias = Any  # a tensor, a number, or a traced value: whatever an operation may be given
T = TypeVar("T", bound="Traced")

# Certainly no tensors, and certainly none that are traced: asking for a type is faster than isinstance().
PLAIN = frozenset({bool, int, float, str, tuple, list, type(None)})
UNTRACED = PLAIN | {Tensor, torch.nn.Parameter}


class Operation(Protocol):
    """What levels need to know of a primitive; :class:`.primitives.table.Primitive` is one."""

    name: str
    views: bool
    forward: Callable[..., Any]
    prepare: Callable[..., Any] | None
    no_aux: tuple[None, ...]
    plans: dict[int, Any]

    def __call__(self, *args: Value) -> Value: ...

    def plan(self, variables: int) -> Any: ...


class _Recording(threading.local):
    """What this thread is doing."""

    def __init__(self) -> None:
        self.depth = 0  # how many transforms are running, one inside the other
        self.blocks: tuple[Any, ...] = ()  # the record blocks that are open, the innermost last
        self.left_to_torch = False  # in the forward pass of a torch.autograd.Function


recording = _Recording()


class Level:
    """One run of one transform; a context manager. Its values may be computed with while it is open."""

    __slots__ = ("depth", "open")

    def __init__(self) -> None:
        self.depth, self.open = 0, False

    def __enter__(self) -> Level:
        recording.depth += 1
        self.depth, self.open = recording.depth, True
        return self

    def __exit__(self, *exception: object) -> None:
        # Python calls this as a `finally`: after an error the next transform starts at the right depth.
        recording.depth -= 1
        self.open = False

    def apply(self, op: Any, args: tuple[Value, ...]) -> Value:
        """Compute ``op(*args)`` and note what this level needs for the derivative."""
        raise NotImplementedError

    def check_open(self, op: object) -> None:
        if not self.open:
            raise RuntimeError(
                f"{op} got a variable from a finished trace: it was made inside of a function given to grad, "
                "vjp, jvp or the like, and kept after that had returned. Return it from the function instead "
                "(has_aux=True), or keep x.detach()"
            )


def highest_level(args: Iterable[Value]) -> Level | None:
    """To which level an operation on these belongs; ``None`` if nothing of it is traced."""
    level: Level | None = None
    for arg in args:
        traced = type(arg) not in UNTRACED and isinstance(arg, Traced)
        if traced and (level is None or arg.level.depth > level.depth):
            level = arg.level
    return level


def raw(value: Value) -> Value:
    """The tensor at the bottom of a traced value; everything else as it is."""
    while type(value) is not Tensor and isinstance(value, Traced):
        value = value._data
    return value


def all_raw(value: Any) -> Any:
    """The same for what is in lists and tuples."""
    nested = isinstance(value, list | tuple) and any(isinstance(x, Traced | list | tuple) for x in value)
    return type(value)(all_raw(each) for each in value) if nested else raw(value)


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)  # plain or traced


def _operator(function: Any) -> tuple[Callable[[Any, Value], Value], Callable[[Any, Value], Value]]:
    """``x + y`` for a traced x and for a traced y, as the table has it."""
    return lambda x, y: TABLE[function](x, y), lambda y, x: TABLE[function](x, y)


class Traced(InMemory):
    """A torch tensor that goes through the table of primitives instead of torch's own autograd.

    For torch it is a tensor with the memory of the one it holds, so that whoever asks ``isinstance(x,
    torch.Tensor)`` is told yes. Its functions and methods come here by ``__torch_function__``; what Python
    can answer itself, faster, stands below. For code in C++, which does not ask, it requires a gradient: then
    torch records what is computed with it, and that comes back as :class:`~.foreign.TorchNode`.
    """

    _data: Value
    level: Level
    is_formula = False

    # -- torch's functions and methods -----------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if autocast.is_on() and kwargs.get("out") is None:
            meaning = dispatch.look_up(func)
            if meaning is not None and meaning not in dispatch.BODIES:
                return autocast.apply(partial(dispatch.call, func), func, args, kwargs)
        return dispatch.answer(func, args, kwargs)

    # Never called, since the class is put on plain tensors. But torch.compile runs as it is what has its own.
    __torch_dispatch__ = classmethod(torch._C._disabled_torch_dispatch_impl)

    @property
    def data(self) -> Value:
        """The plain tensor that it holds (a new one each time), or a traced value of a lower level."""
        return self._data if isinstance(self._data, Traced) else self._data.detach()

    @data.setter
    def data(self, value: Value) -> None:
        self._data = value
        with torch._C.DisableTorchFunction():  # the tensor that torch sees, also within record()
            _set_data(self, raw(value).detach())

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        return self._data.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self._data.dtype  # type: ignore[no-any-return]

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        return True

    def detach(self) -> Tensor:
        """A plain tensor of the same memory, a new one each time: a constant to every transform."""
        return raw(self).detach()  # type: ignore[no-any-return]

    # No __getitem__: with one written in Python, torch.tensor([x]) would take a number for a list.

    # -- operators -------------------------------------------------------------------------------------

    __add__, __radd__ = _operator(Tensor.__add__)
    __sub__, __rsub__ = _operator(Tensor.__sub__)
    __mul__, __rmul__ = _operator(Tensor.__mul__)
    __truediv__, __rtruediv__ = _operator(Tensor.__truediv__)
    __floordiv__, __rfloordiv__ = _operator(Tensor.__floordiv__)
    __mod__, __rmod__ = _operator(Tensor.__mod__)
    __pow__, __rpow__ = _operator(Tensor.__pow__)
    __matmul__, __rmatmul__ = _operator(Tensor.__matmul__)

    def __neg__(self) -> Value:
        return TABLE[torch.neg](self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return TABLE[torch.abs](self)

    # -- comparisons and what Python asks of a number or a list: constants ------------------------------

    def __eq__(self, other: object) -> Any:
        return raw(self) == raw(other)

    def __ne__(self, other: object) -> Any:
        return raw(self) != raw(other)

    def __lt__(self, other: Value) -> Tensor:
        return raw(self) < raw(other)  # type: ignore[no-any-return]

    def __le__(self, other: Value) -> Tensor:
        return raw(self) <= raw(other)  # type: ignore[no-any-return]

    def __gt__(self, other: Value) -> Tensor:
        return raw(self) > raw(other)  # type: ignore[no-any-return]

    def __ge__(self, other: Value) -> Tensor:
        return raw(self) >= raw(other)  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Value]:
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        return bool(raw(self))

    def __float__(self) -> float:
        return float(raw(self))

    def __int__(self) -> int:
        return int(raw(self))

    def __contains__(self, item: Value) -> bool:
        return bool((raw(self) == raw(item)).any())

    def __dir__(self) -> list[str]:
        return sorted({*dir(Tensor), *dir(type(self))})

    def __format__(self, spec: str) -> str:
        return format(raw(self), spec) if spec and not self.shape else str(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise RuntimeError(f"a {type(self).__name__} cannot be copied with its past; copy x.detach()")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise RuntimeError(f"a {type(self).__name__} cannot be saved with its past; save x.detach()")

    # -- memory, which in-place operations share ---------------------------------------------------------

    times_written: int = 0  # it, or a view of it
    written_at: int = 0  # the last time, as torch counts what it records
    reshaped: int = 0  # what that of its base was when it got another shape

    def note_write(self) -> None:
        self.times_written, self.written_at = self.times_written + 1, torch._C._autograd._get_sequence_nr()

    def moved(self, memory: Tensor) -> Traced:
        """The same value with the same past, but held by this tensor."""
        raise NotImplementedError

    def adopt(self, other: Traced) -> None:
        """Get the past of another value; the memory stays."""
        raise NotImplementedError

    def without_reverse(self) -> Value:
        """The same as a constant for reverse mode; tangents of forward mode stay."""
        raise NotImplementedError


def hold(kind: type[T], data: Value) -> T:
    """A traced value that holds this tensor or value; its level and past are still to come."""
    tensor = raw(data).data  # another tensor of the same memory; detach() takes longer
    tensor.requires_grad = True
    try:
        tensor.__class__ = kind  # as well faster than to have torch make a subclass
    except TypeError:
        raise no_plain_tensor(tensor) from None
    tensor._data = data
    return tensor  # type: ignore[no-any-return]


def in_memory(value: Value, memory: Tensor) -> Value:
    """A value held by this tensor: with the past that it has, if it has one."""
    return value.moved(memory) if isinstance(value, Traced) else memory
