"""A tensor with a past: each operation on variables gives one that remembers how it was made."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .reverse import Leaf, Node, clock, sweep
from .traced import PLAIN, Level, Traced, Value, raw

if TYPE_CHECKING:
    from .primitives.table import Primitive


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
        self.data, self.level, self.grad = data, BASE, None
        self.node = Leaf(data, owner=weakref.ref(self))

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
        backward(self, gradient, retain, create_graph, inputs)

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


new = object.__new__  # looked up once: variables are made all the time


def tracked_variable(data: Value, level: Level, node: Node) -> Variable:
    """A variable on any level, made by an operation (or a leaf of a transform)."""
    variable: Variable = new(Variable)
    variable.data, variable.level, variable.node, variable.grad = data, level, node, None
    return variable


# -- recording -----------------------------------------------------------------------------------------------


class ReverseLevel(Level):
    """Records operations. :data:`BASE` is the level of ``Variable(...)``, always open."""

    __slots__ = ()

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        if not self.open:
            self.check_open(op)
        known: list[Value] = []  # the arguments, then the result and what else the computation leaves
        parents: list[Node] = []
        variables, deeper = 1, False  # which arguments are variables: a bit each, behind a leading 1
        for arg in args:
            variables <<= 1
            if type(arg) in PLAIN:
                pass
            elif isinstance(arg, Traced):
                if arg.level is self:
                    variables |= 1
                    parents.append(arg.node)
                    arg = arg.data
                deeper = deeper or isinstance(arg, Traced)
            elif isinstance(arg, Tensor):
                arg = arg.detach()  # a constant, whatever torch may know about it
            known.append(arg)
        if op.prepare is not None:
            known[:] = op.prepare(*known)

        if deeper:
            result, aux = op(*known), op.no_aux
        elif op.no_aux:
            result, aux = op.forward(*known)
        else:
            result, aux = op.forward(*known), ()
        if not torch.is_grad_enabled():
            return result
        known += (result, *aux)
        node = Node()  # field by field: this is done for every operation, and a constructor takes its time
        node.op, node.parents, node.age, node.plain = op, parents, next(clock), not deeper
        node.shape, node.dtype = result.shape, result.dtype
        node.plan = plan = op.plans.get(variables) or op.plan(variables)
        node.saved, node.versions = plan.save(known)
        variable = tracked_variable(result, self, node)
        if op.views:
            share_memory(args[0], variable)
        return variable


BASE = ReverseLevel()
BASE.open = True


def share_memory(base: Variable, view: Variable) -> None:
    """Note who shares memory: one list for a variable and all of its views."""
    sharing = getattr(base.node, "sharing", None)
    if sharing is None:
        base.node.sharing = sharing = [weakref.ref(base)]
    sharing.append(weakref.ref(view))
    view.node.sharing = sharing


# -- backward() ----------------------------------------------------------------------------------------------


def backward(
    output: Variable, gradient: Value, retain_graph: bool, create_graph: bool, inputs: Any = None
) -> None:
    """What :meth:`Variable.backward` does."""
    if output.level is not BASE:
        raise RuntimeError(
            "backward() inside of a function that is being transformed; use autograd.grad there"
        )
    seed = seed_for(output, gradient)
    only = None
    if inputs is not None:
        only = {v.node for v in ([inputs] if isinstance(inputs, Traced) else inputs)}
        if not only or not all(isinstance(node, Leaf) for node in only):
            raise RuntimeError("backward(inputs=...) must be one or more leaves: Variables you made yourself")
    with torch.set_grad_enabled(create_graph):
        gradients = sweep([(output.node, seed)], retain_graph, rewrap=rewrap if create_graph else None)
        # The sweep may hand the same memory to several leaves (z = x + y); whoever writes into x.grad later
        # must not change y.grad, nor what the caller passed in.
        taken = {raw(seed).untyped_storage().data_ptr()}
        for leaf, g in gradients.items():
            if only is None or leaf in only:
                memory = raw(g).untyped_storage().data_ptr()
                leaf.accumulate(g.clone() if memory in taken else g)  # type: ignore[attr-defined]
                taken.add(memory)


def rewrap(node: Node, saved: Sequence[Value]) -> Sequence[Value]:
    """What a node has saved of its arguments and its result as variables again, with their past."""
    pasts = [*node.parents, node]
    return [
        value if past is None or value is None else tracked_variable(value, BASE, pasts[past])
        for value, past in zip(saved, node.plan.pasts, strict=True)
    ]


def seed_for(output: Value, gradient: Value) -> Value:
    """The gradient to start with, checked."""
    if gradient is None:
        value = raw(output)
        if value.numel() != 1:
            raise RuntimeError(
                "backward() starts from a single number, such as a loss; this result has shape "
                f"{tuple(output.shape)}. Reduce it, or pass backward(gradient) of that shape"
            )
        return torch.ones_like(value)
    if not isinstance(gradient, Traced):
        gradient = torch.as_tensor(gradient).detach()
    if gradient.shape != output.shape:
        raise RuntimeError(
            f"gradient has shape {tuple(gradient.shape)}, but the result has shape {tuple(output.shape)}"
        )
    if gradient.dtype != output.dtype:
        raise RuntimeError(f"gradient has dtype {gradient.dtype}, but the result has dtype {output.dtype}")
    return gradient
