"""A tensor with a past: what it holds, how it behaves like a torch tensor, and which trace it belongs to.

A value is *traced* while somebody wants to know its derivative. Two kinds of traced values exist:

- :class:`Variable` remembers the operation that made it (reverse mode, :mod:`.reverse`),
- :class:`~torchopt_course.autograd.forward.Dual` carries its derivative along (:mod:`.forward`).

Everything else is a constant, and constants are plain tensors and numbers. Each traced value belongs to a
*level*: one run of one transform. ``grad(grad(f))`` runs f on level 2, whose values hold values of level 1,
which hold tensors. An operation always belongs to the highest level among its arguments and sees the others
as constants, so derivatives of different transforms are never confused.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from . import dispatch

if TYPE_CHECKING:
    from .primitives.table import Primitive
    from .reverse import Node

# A tensor, a number, or a traced value: whatever an operation may be given.
Value: TypeAlias = Any


class _Depth(threading.local):
    """How many transforms are running in this thread, one inside the other."""

    def __init__(self) -> None:
        self.now = 0


_depth = _Depth()


class Level:
    """One run of one transform; a context manager. Its values may be computed with while it is open."""

    __slots__ = ("depth", "open")

    def __init__(self) -> None:
        self.depth, self.open = 0, False

    def __enter__(self) -> Level:
        _depth.now += 1
        self.depth, self.open = _depth.now, True
        return self

    def __exit__(self, *exception: object) -> None:
        # Python calls this as a `finally`: after an error the next transform starts at the right depth.
        _depth.now -= 1
        self.open = False

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        """Compute ``op(*args)`` and note what this level needs for the derivative."""
        raise NotImplementedError

    def check_open(self, op: object) -> None:
        if not self.open:
            raise RuntimeError(
                f"{op} got a variable from a finished trace: it was made inside of a function given to grad, "
                "vjp, jvp or the like, and kept after that had returned. Return it from the function instead "
                "(has_aux=True), or keep x.detach()"
            )


def raw(value: Value) -> Value:
    """The tensor at the bottom of a traced value; everything else as it is."""
    while isinstance(value, Traced):
        value = value.data
    return value


def is_tensor(value: object) -> bool:
    """Plain or traced."""
    return isinstance(value, Tensor | Traced)


class Traced:
    """Behaves like a torch tensor; every operation on it goes through the table of primitives."""

    __slots__ = ("__weakref__", "data", "level")
    data: Value
    level: Level

    # -- torch's functions and methods -----------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return dispatch.call(func, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        """Any method or attribute that a tensor has."""
        attribute = getattr(Tensor, name, None)
        if attribute is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if callable(attribute):
            return partial(dispatch.call, attribute, self)
        if attribute.__get__ in dispatch.TABLE:
            return dispatch.call(attribute.__get__, self)
        return getattr(raw(self), name)  # device, is_cuda, layout, ...: nothing to differentiate

    @property
    def shape(self) -> torch.Size:
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype  # type: ignore[no-any-return]

    def detach(self) -> Tensor:
        """The plain tensor, sharing memory: a constant to every transform."""
        return raw(self)  # type: ignore[no-any-return]

    # -- operators -------------------------------------------------------------------------------------

    def __add__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.add](self, other)

    def __radd__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.add](other, self)

    def __sub__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.sub](self, other)

    def __rsub__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.sub](other, self)

    def __mul__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.mul](self, other)

    def __rmul__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.mul](other, self)

    def __truediv__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.div](self, other)

    def __rtruediv__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.div](other, self)

    def __pow__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.pow](self, other)

    def __rpow__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.pow](other, self)

    def __matmul__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.matmul](self, other)

    def __rmatmul__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.matmul](other, self)

    def __floordiv__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.div](self, other, rounding_mode="floor")

    def __rfloordiv__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.div](other, self, rounding_mode="floor")

    def __mod__(self, other: Value) -> Value:
        return dispatch.TABLE[torch.remainder](self, other)

    def __neg__(self) -> Value:
        return dispatch.TABLE[torch.neg](self)

    def __pos__(self) -> Value:
        return self

    def __abs__(self) -> Value:
        return dispatch.TABLE[torch.abs](self)

    def __getitem__(self, index: Any) -> Value:
        return dispatch.TABLE[Tensor.__getitem__](self, index)

    def __setitem__(self, index: Any, value: Value) -> None:
        dispatch.call(Tensor.__setitem__, self, index, value)

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
        return len(self.data)

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

    def __format__(self, spec: str) -> str:
        return format(raw(self), spec) if spec and not self.shape else str(self)

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"numpy would lose the derivative of a {type(self).__name__}; use x.detach().numpy()"
        )

    def numpy(self, *args: object, **kwargs: object) -> NoReturn:
        self.__array__()

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise RuntimeError(f"a {type(self).__name__} cannot be copied with its past; copy x.detach()")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise RuntimeError(f"a {type(self).__name__} cannot be saved with its past; save x.detach()")


class Variable(Traced):
    """A tensor whose gradient can be asked for::

        x, y = Variable(2.0), Variable(3.0)
        z = x * y + torch.sin(x)
        z.backward()
        x.grad  # y + cos x

    All of torch's functions and methods that have an entry in the table of primitives take variables:
    operators, ``torch.exp(x)``, ``x.sum(0)``, ``torch.nn.functional.linear(x, w)``. Operations on variables
    give variables; whatever has no derivative (``x > 0``, ``x.argmax()``, ``x.detach()``, and everything
    inside of :class:`torch.no_grad`) gives plain tensors.

    Args:
        data: a real floating-point tensor (its memory is shared), a number or a nested list of numbers.

    Attributes:
        data: the tensor.
        grad: what :meth:`backward` has added up, a plain tensor (after ``create_graph=True`` a variable),
            or ``None``.
        node: the operation that made it, or a leaf.

    Raises:
        RuntimeError: data of a dtype that has no derivatives: integers and booleans.
        TypeError: complex data.
    """

    __slots__ = ("grad", "node")
    grad: Value
    node: Node

    def __init__(self, data: Value) -> None:
        data = raw(data)
        data = data.detach() if isinstance(data, Tensor) else torch.as_tensor(data)
        if not data.is_floating_point():
            if data.is_complex():
                raise TypeError(f"a Variable must be real, not {data.dtype}")
            raise RuntimeError(f"only floating-point tensors have derivatives, not {data.dtype}")
        self.data, self.level, self.grad = data, reverse.BASE, None
        self.node = reverse.Leaf(data, owner=weakref.ref(self))

    def backward(
        self,
        gradient: Tensor | Value = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add d(self)/d(leaf) to the ``grad`` of every leaf that this variable was computed from.

        Args:
            gradient: the cotangent to start with, shaped like this variable; 1 for a scalar.
            retain_graph: keep what the sweep would free, for another one (default: ``create_graph``).
            create_graph: record the sweep itself, so that gradients can be differentiated again.
            inputs: the leaves to write to, one or a sequence (default: all).

        Raises:
            RuntimeError: not a scalar and no ``gradient``; a gradient of another shape; a second sweep
                through what the first one has freed; a saved tensor that was changed in place since.
        """
        retain = create_graph if retain_graph is None else retain_graph
        reverse.backward(self, gradient, retain, create_graph, inputs)

    @property
    def is_leaf(self) -> bool:
        return self.node.op is None

    def __repr__(self) -> str:
        made_by = "" if self.is_leaf else f", made by {self.node.op}"
        return f"Variable({_indented(self.data, 'Variable(')}{made_by})"


def _indented(data: Value, prefix: str) -> str:
    text = repr(data)
    if text.startswith("tensor("):
        text = text[len("tensor(") : -1]
        text = text.replace("\n" + " " * len("tensor("), "\n" + " " * len(prefix))
    return text


def tracked_variable(data: Value, level: Level, node: Node) -> Variable:
    """A variable on any level, made by an operation (or a leaf of a transform)."""
    variable = Variable.__new__(Variable)
    variable.data, variable.level, variable.node, variable.grad = data, level, node, None
    return variable


from . import reverse  # noqa: E402  it needs the classes above, and is needed when a variable is made
