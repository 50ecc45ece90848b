"""A tensor with a past: each operation on variables gives one that remembers how it was made."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .copies import Copied
from .devices import has_numbers_of_cpu, on_one_device
from .dispatch import TABLE
from .foreign import is_differentiating, node_of
from .hooks import Hooked, hooks, move_retaining
from .memory import as_taken_under_no_grad, no_plain_tensor, shares
from .packing import CLOSED_BY_HOOKS, refuse_packing
from .reverse import Leaf, Node, clock
from .switched_off import CONSTANT
from .traced import PLAIN, UNTRACED, Level, Operation, Traced, Value, highest_level, hold, in_memory, raw
from .views import Follows


class Variable(Hooked, Copied):
    """A tensor whose gradient can be asked for::

        x, y = Variable(2.0), Variable(3.0)
        z = x * y + torch.sin(x)
        z.backward()
        x.grad  # y + cos x

    All of torch's functions and methods that have an entry in the table of primitives take variables:
    operators, ``torch.exp(x)``, ``x.sum(0)``, ``torch.nn.functional.linear(x, w)``. Operations on variables
    give variables; whatever has no derivative (``x > 0``, ``x.argmax()``, ``x.detach()``, and everything
    inside of :class:`torch.no_grad`) gives plain tensors. A plain tensor that requires a gradient, met by an
    operation on variables, is an input of the graph like a variable, and gets its ``.grad``.

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

    node: Node
    _grad: Value = None

    def __new__(cls, data: Value) -> Variable:
        data = raw(data)
        data = data.detach() if isinstance(data, Tensor) else torch.as_tensor(data)
        if not data.is_floating_point():
            if data.is_complex():
                raise TypeError(f"a Variable must be real, not {data.dtype}")
            raise RuntimeError(f"only floating-point tensors have derivatives, not {data.dtype}")
        variable = hold(cls, data)
        variable.level, variable.node = BASE, Leaf(data, owner=weakref.ref(variable))
        return variable

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Add to ``.grad`` of the leaves that this came from; arguments as of ``torch.Tensor.backward``."""
        TABLE[Tensor.backward](self, *args, **kwargs)

    @Traced.data.setter  # type: ignore[attr-defined, untyped-decorator]
    def data(self, value: Value) -> None:
        Traced.data.fset(self, value)  # type: ignore[attr-defined]
        if isinstance(self.node, Leaf):  # it may have another shape from now on
            self.node.shape, self.node.dtype = value.shape, value.dtype

    @property
    def is_leaf(self) -> bool:  # type: ignore[override]
        return self.node.op is None

    @property
    def grad_fn(self) -> Node | None:  # type: ignore[override]
        """The operation that made it, torch's own if it was torch; ``None`` for a leaf."""
        return None if self.node.op is None else getattr(self.node, "grad_fn", self.node)

    @property
    def requires_grad(self) -> bool:
        """True, unless it was detached in place or switched off."""
        return self.level is not CONSTANT

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def detach_(self) -> Variable:
        """Forget the past: a constant from here on. A view cannot, its base would have to."""
        if isinstance(self, Follows):
            raise RuntimeError("Can't detach views in-place. Use detach() instead")
        self._data = raw(self)
        self._start_anew(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Variable:
        """Switch a leaf on or off, as ``x.detach_()`` does; what was recorded before no longer reaches it."""
        if self.level.depth > 0:
            raise RuntimeError("requires_grad_() inside of a function that is being transformed")
        if requires_grad != self.requires_grad:
            if not isinstance(self.node, Leaf):
                raise RuntimeError(
                    "you can only change requires_grad flags of leaf variables; use x.detach() for a constant"
                )
            self.node.owner = None
            self._start_anew(requires_grad)
        return self

    def _start_anew(self, requires_grad: bool) -> None:
        self.level = BASE if requires_grad else CONSTANT
        self.node = Leaf(self, owner=weakref.ref(self) if requires_grad else None)
        with torch._C.DisableTorchFunction():  # what torch sees, for code in C++
            _set_requires_grad(self, requires_grad)

    def without_reverse(self) -> Value:
        data = self._data
        return data.without_reverse() if isinstance(data, Traced) else data

    def moved(self, memory: Tensor) -> Variable:
        return tracked_variable(in_memory(self._data, memory), self.level, self.node)

    def adopt(self, other: Traced) -> None:
        """Get another past, with the same memory."""
        assert isinstance(other, Variable)
        if hooks.data:  # type: ignore[attr-defined]
            move_retaining(getattr(self, "node", None), other.node)  # a plain tensor has none yet
        self._data, self.level, self.node = in_memory(other._data, raw(self)), other.level, other.node

    def __repr__(self) -> str:  # type: ignore[override]
        made_by = "" if self.is_leaf else f", made by {self.node.op}"
        return f"Variable({_indented(self._data, 'Variable(')}{made_by})"


def _indented(data: Value, prefix: str) -> str:
    text = repr(data)
    if text.startswith("tensor("):
        text = text[len("tensor(") : -1]
        text = text.replace("\n" + " " * len("tensor("), "\n" + " " * len(prefix))
    return text


# What torch.load() may make, with a function of copies.py.
torch.serialization.add_safe_globals([Variable])


def tracked_variable(data: Value, level: Level, node: Node) -> Variable:
    """A variable on any level, made by an operation (or a leaf of a transform)."""
    # As hold() does, in one piece: this is done all the time.
    variable: Any = (data if type(data) is Tensor else raw(data)).data
    variable.requires_grad = True
    try:
        variable.__class__ = Variable
    except TypeError:
        raise no_plain_tensor(variable) from None
    variable._data, variable.level, variable.node = data, level, node
    return variable  # type: ignore[no-any-return]


class View(Follows, Variable):
    """A variable that shares the memory of another one."""

    @property
    def node(self) -> Node:
        self.follow()
        return self._past  # type: ignore[no-any-return]

    @node.setter
    def node(self, node: Node) -> None:
        self._past = node


_set_requires_grad: Any = torch._C.TensorBase.requires_grad.__set__  # type: ignore[attr-defined]
is_grad_enabled = torch.is_grad_enabled  # looked up once, as it is asked for every operation


# -- recording -----------------------------------------------------------------------------------------------


class ReverseLevel(Level):
    """Records operations. :data:`BASE` is the level of ``Variable(...)``, always open."""

    __slots__ = ()

    def apply(self, op: Operation, args: tuple[Value, ...]) -> Value:
        if not self.open:
            self.check_open(op)
        known: list[Value] = []  # the arguments, then the result and what else the computation leaves
        parents: list[Node] = []
        variables = 1  # a bit for each argument, behind a leading 1
        deeper = numbers = plain = False
        enabled = is_grad_enabled()
        for arg in args:
            variables += variables
            kind = type(arg)  # asked first, as isinstance() takes longer
            if kind in PLAIN:
                numbers = True
            elif kind is Variable or (kind not in UNTRACED and isinstance(arg, Traced)):
                level = arg.level
                if level is self:
                    variables += 1
                    parents.append(arg.node)
                    arg = arg._data
                elif level is CONSTANT:
                    arg = arg._data
                elif level.depth > self.depth:  # behind a variable of BASE, where nobody has looked
                    return highest_level(args).apply(op, args)  # type: ignore[union-attr]
                if type(arg) is not Tensor and isinstance(arg, Traced):
                    deeper = True
            elif kind in UNTRACED or isinstance(arg, Tensor):
                plain = True
                if arg.is_complex():
                    raise no_complex(op)
                if arg.requires_grad:
                    if enabled and self is BASE:  # an input of the graph
                        variables += 1
                        parents.append(node_of(arg))
                        arg = arg.detach()
                    else:
                        arg = lift(arg)
                        deeper = deeper or isinstance(arg, Traced)
            elif kind is complex:
                raise no_complex(op)
            known.append(arg)
        if plain and is_differentiating():
            raise NotImplementedError(
                f"{op} of a variable in a transform of torch.func or torch.autograd.forward_ad; use this "
                "package's grad, vjp, jvp"
            )
        if numbers and op.prepare is not None:
            known[:] = op.prepare(*known)

        if deeper:
            result, aux = op(*known), op.no_aux
        elif op.no_aux:
            result, aux = op.forward(*known)
        else:
            result, aux = op.forward(*known), ()
        if type(result) is not Tensor and not isinstance(result, Tensor):
            raise TypeError(f"{op} must return one tensor (and with aux= the extra values), not {result!r}")
        if not enabled:
            if result is known[0]:  # nothing to do, as for x.contiguous(): the variable itself, as in torch
                return args[0]
            return as_taken_under_no_grad(result, known[:1]) if op.views else result
        if not (result if type(result) is Tensor else raw(result)).is_cpu and has_numbers_of_cpu(args):
            return on_one_device(op, args)
        known.append(result)
        known += aux
        node = Node()  # field by field: this is done for every operation, and a constructor takes its time
        node.op, node.parents, node.age, node.plain = op, parents, next(clock), not deeper
        node.shape, node.dtype = result.shape, result.dtype
        node.plan = plan = op.plans.get(variables) or op.plan(variables)
        node.saved, node.versions = plan.save(known)
        if op.views and shares(raw(result), raw(known[0])):
            above = args[0] if isinstance(args[0], Variable) else lift(args[0])
            return View.taken(above, (op, args[1:]), result, node)
        return tracked_variable(result, self, node)


def no_complex(op: Operation) -> NotImplementedError:
    return NotImplementedError(f"no derivative is known for {op} of complex numbers: variables are real")


class BaseLevel(ReverseLevel):
    """The level of ``Variable(...)``: always open, but for a closer look within hooks of what is saved."""

    __slots__ = ()

    def check_open(self, op: object) -> None:
        if torch.is_grad_enabled():
            refuse_packing()


BASE = BaseLevel()
BASE.open = True
CLOSED_BY_HOOKS.append(BASE)


def lift(tensor: Tensor) -> Value:
    """A plain tensor that requires a gradient as a variable; as a constant where nothing is recorded."""
    constant = tensor.detach()
    return tracked_variable(constant, BASE, node_of(tensor)) if torch.is_grad_enabled() else constant


def is_recorded(args: Iterable[Any]) -> bool:
    """Whether there is a variable, or a plain real tensor that requires a gradient."""
    for arg in args:
        if isinstance(arg, Tensor):
            if type(arg) is Variable or (arg.requires_grad and not arg.is_complex()):
                return True
        elif type(arg) in (list, tuple) and is_recorded(arg):
            return True
    return False
