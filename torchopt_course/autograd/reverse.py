"""Reverse mode: record each operation, then walk back from the result and add up the gradients.

Every operation leaves a :class:`Node` that knows its parents and the values its derivative needs.
:func:`sweep` is the lecture's backpropagation: visit the nodes from the result to the leaves, each one when
all its uses have been visited, and hand each parent its share of the gradient. It is a loop, so a graph may
be as deep as memory allows.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .variable import Level, Traced, Value, Variable, raw, tracked_variable

if TYPE_CHECKING:
    from .primitives.table import Primitive


class Node:
    """One recorded operation. It never refers to the variable that it made: no reference cycles.

    Attributes:
        op: the primitive; ``None`` for a leaf.
        parents: the nodes of the arguments, ``None`` where an argument is a constant.
        values: what the derivative needs (see ``Primitive.slots``), ``None`` after it was freed.
        versions: for each tensor among the values its position and its version counter, as it was.
        shape, dtype, device: of the result, hence of its gradient.
        sharing: the variables that may share the result's memory; set only when there are views.
    """

    __slots__ = ("__weakref__", "device", "dtype", "op", "parents", "shape", "sharing", "values", "versions")
    op: Primitive | None
    parents: Sequence[Node | None]
    values: list[Value] | None
    versions: list[tuple[int, int]]
    sharing: list[weakref.ref[Variable]]

    def __init__(self, op: Primitive | None, parents: Sequence[Node | None], result: Value) -> None:
        self.op, self.parents = op, parents
        self.shape, self.dtype, self.device = result.shape, result.dtype, result.device

    def pull(self, g: Value, create_graph: bool) -> Sequence[Value]:
        """The gradients of the parents, given the gradient of the result; ``None`` for constants."""
        op, values = self.op, self.values
        assert op is not None
        if values is None:
            raise RuntimeError(
                f"backward through {op} for the second time: the first sweep has freed the values it saved. "
                "Say backward(retain_graph=True) the first time"
            )
        if self.versions:
            self._check_versions(values)
        if create_graph:
            values = op.rewrap(values, self)
        return op.pull(g, values, self.parents)

    def save(self, values: list[Value], kept: Iterable[int]) -> None:
        self.values = values
        self.versions = []
        for j in kept:
            value = values[j]
            if isinstance(value, Traced):
                value = raw(value)
            if isinstance(value, Tensor):
                self.versions.append((j, value._version))

    def _check_versions(self, values: list[Value]) -> None:
        for j, version in self.versions:
            tensor = values[j]
            if isinstance(tensor, Traced):
                tensor = raw(tensor)
            if tensor._version != version:
                assert self.op is not None
                raise RuntimeError(
                    f"{self.op} needs {self.op.slot_name(j)} ({_look(tensor)}) for its derivative, but that "
                    f"was changed in place: it was saved at version {version} and is at version "
                    f"{tensor._version} now"
                )

    def free(self) -> None:
        assert self.op is not None
        if self.versions:  # with nothing saved, a second sweep does no harm
            self.values = None

    def __repr__(self) -> str:
        return f"<Node {self.op or 'leaf'}, {_look(self)}>"


class Leaf(Node):
    """Where a sweep ends: a variable of the user, a parameter of a module, an input of a transform."""

    __slots__ = ("name", "owner", "parameter")

    def __init__(
        self,
        data: Value,
        owner: weakref.ref[Variable] | None = None,
        parameter: Tensor | None = None,
        name: str = "",
    ) -> None:
        super().__init__(None, (), data)
        self.owner, self.parameter, self.name = owner, parameter, name

    def accumulate(self, g: Value) -> None:
        """Add to ``.grad`` out of place: nobody who kept the old gradient sees it change."""
        variable = None if self.owner is None else self.owner()
        if variable is not None:
            variable.grad = g if variable.grad is None else variable.grad + g
        if self.parameter is not None:
            g, old = raw(g), self.parameter.grad
            self.parameter.grad = laid_out_like(self.parameter, g) if old is None else old + g


def laid_out_like(parameter: Tensor, g: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, as optimizers expect it."""
    return g if g.stride() == parameter.stride() else torch.empty_like(parameter).detach().copy_(g)


class ReverseLevel(Level):
    """Records operations. :data:`BASE` is the level of ``Variable(...)``, always open."""

    __slots__ = ()

    def apply(self, op: Primitive, args: tuple[Value, ...]) -> Value:
        if not self.open:
            self.check_open(op)
        values: list[Value] = []
        parents: list[Node | None] = []
        mask, deeper = 0, False
        for i, arg in enumerate(args):
            parent = None
            if isinstance(arg, Traced):
                if arg.level is self:
                    parent, arg = arg.node, arg.data
                    mask |= 1 << i
                if isinstance(arg, Traced):
                    deeper = True
            elif isinstance(arg, Tensor):
                arg = arg.detach()  # a constant, whatever torch may know about it
            values.append(arg)
            parents.append(parent)

        if deeper:
            result, aux = op(*values), op.no_aux
        elif op.no_aux:
            result, aux = op.forward(*values)
        else:
            result, aux = op.forward(*values), ()
        if not torch.is_grad_enabled():
            return result
        node = Node(op, parents, result)
        kept = op.kept(mask)
        saved = op.keep(kept, values, result, aux)
        node.save(saved, range(len(saved)) if op.variadic else kept)
        variable = tracked_variable(result, self, node)
        if op.views:
            share_memory(args[0], variable)
        return variable


BASE = ReverseLevel()
BASE.open = True


# -- the sweep -----------------------------------------------------------------------------------------------


def sweep(
    seeds: Iterable[tuple[Node, Value]],
    arrive: Callable[[Node, Value], None],
    retain_graph: bool,
    create_graph: bool = False,
) -> None:
    """Backpropagation: from the results, each with its gradient, to the leaves.

    ``arrive`` is called once with each node that a gradient reaches and its complete gradient, leaves
    included.
    """
    gradients: dict[Node, Value] = {}
    for node, g in seeds:
        gradients[node] = gradients[node] + g if node in gradients else g
    uses = count_uses(gradients)
    ready = [node for node in gradients if not uses[node]]
    while ready:
        node = ready.pop()
        g = gradients.pop(node, None)
        if g is not None:
            arrive(node, g)
        if node.op is None:
            continue
        shares = [None] * len(node.parents) if g is None else node.pull(g, create_graph)
        for parent, share in zip(node.parents, shares, strict=True):
            if parent is None:
                continue
            if share is not None:
                share = fit(share, parent, node.op)
                known = gradients.get(parent)
                gradients[parent] = share if known is None else known + share
            uses[parent] -= 1
            if not uses[parent]:
                ready.append(parent)
        if not retain_graph:
            node.free()


def count_uses(roots: Iterable[Node]) -> dict[Node, int]:
    """For each node above the roots: by how many arguments of operations it is used."""
    uses = dict.fromkeys(roots, 0)
    stack = list(uses)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None:
                if parent in uses:
                    uses[parent] += 1
                else:
                    uses[parent] = 1
                    stack.append(parent)
    return uses


def fit(g: Value, node: Node, op: Primitive) -> Value:
    """A gradient must look like the value it belongs to: undo broadcasting and promotion, refuse the rest."""
    if g.shape != node.shape:
        g = unbroadcast(g, node.shape, op)
    if g.dtype is not node.dtype:
        g = g.to(node.dtype)
    if g.device != node.device:
        raise RuntimeError(f"the VJP of {op} gave a gradient on {g.device} for an argument on {node.device}")
    return g


def unbroadcast(g: Value, shape: torch.Size, op: object = "unbroadcast") -> Value:
    """Sum over what broadcasting has repeated: if x was used n times, its gradient has n terms."""
    extra = len(g.shape) - len(shape)
    repeated = [
        i for i, (n, m) in enumerate(zip(g.shape[extra:], shape, strict=False), max(extra, 0)) if n != m
    ]
    if extra < 0 or any(shape[i - extra] != 1 for i in repeated):
        raise RuntimeError(
            f"the VJP of {op} gave a gradient of shape {tuple(g.shape)} for an argument of shape "
            f"{tuple(shape)}"
        )
    return g.sum([*range(extra), *repeated]).reshape(shape)


def backward(
    output: Variable, gradient: Value, retain_graph: bool, create_graph: bool, inputs: Any = None
) -> None:
    """What :meth:`Variable.backward` does."""
    if output.level is not BASE:
        raise RuntimeError(
            "backward() inside of a function that is being transformed; use autograd.grad there"
        )
    g = seed_for(output, gradient)
    only = None
    if inputs is not None:
        only = {v.node for v in ([inputs] if isinstance(inputs, Traced) else inputs)}
        if not only or not all(isinstance(node, Leaf) for node in only):
            raise RuntimeError("backward(inputs=...) must be one or more leaves: Variables you made yourself")

    # The sweep may hand the same memory to several leaves (z = x + y); whoever writes into x.grad later must
    # not change y.grad, nor what the caller passed in.
    taken = {raw(g).untyped_storage().data_ptr()}

    def arrive(node: Node, g: Value) -> None:
        if isinstance(node, Leaf) and (only is None or node in only):
            memory = raw(g).untyped_storage().data_ptr()
            node.accumulate(g.clone() if memory in taken else g)
            taken.add(memory)

    with torch.set_grad_enabled(create_graph):
        sweep([(output.node, g)], arrive, retain_graph, create_graph)


def seed_for(output: Value, gradient: Value) -> Value:
    """The gradient to start with, checked."""
    if gradient is None:
        if output.numel() != 1:
            raise RuntimeError(
                "backward() starts from a single number, such as a loss; this result has shape "
                f"{tuple(output.shape)}. Reduce it, or pass backward(gradient) of that shape"
            )
        return torch.ones_like(raw(output))
    if not isinstance(gradient, Traced):
        gradient = torch.as_tensor(gradient).detach()
    if gradient.shape != output.shape:
        raise RuntimeError(
            f"gradient has shape {tuple(gradient.shape)}, but the result has shape {tuple(output.shape)}"
        )
    if gradient.dtype != output.dtype:
        raise RuntimeError(f"gradient has dtype {gradient.dtype}, but the result has dtype {output.dtype}")
    return gradient


def replace(x: Value, new: Value, name: str) -> Value:
    """What an in-place operation comes to: the variable stays the same object and gets a new past."""
    if not isinstance(x, Variable):
        kind = "a plain tensor, which cannot remember it" if not isinstance(x, Traced) else "a dual number"
        raise RuntimeError(f"{name} would write a variable's value into {kind}; write x = x.{name[:-1]}(...)")
    if isinstance(x.node, Leaf):
        raise RuntimeError(f"{name} on a leaf variable: its gradient could no longer be told; use x.detach()")
    assert x.node.op is not None
    if any((other := ref()) is not None and other is not x for ref in getattr(x.node, "sharing", ())):
        raise RuntimeError(
            f"{name} on a variable that shares memory with another one, which would have to change with it "
            f"(one is a view of the other); write x = x.{name.rstrip('_')}(...)"
        )
    if not isinstance(new, Variable):
        raise RuntimeError(f"{name} under no_grad would forget the variable's past; use x.detach()")
    x.data, x.node, x.level = new.data, new.node, new.level
    return x


def share_memory(base: Variable, view: Variable) -> None:
    """Note who shares memory: one list for a variable and all of its views."""
    sharing = getattr(base.node, "sharing", None)
    if sharing is None:
        base.node.sharing = sharing = [weakref.ref(base)]
    sharing.append(weakref.ref(view))
    view.node.sharing = sharing


def _look(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
