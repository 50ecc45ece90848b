"""Reverse mode: walk back from the result through all operations and add up the gradients.

Every operation leaves a :class:`Node` that knows its parents and the values its derivative needs.
:func:`sweep` is the lecture's backpropagation: visit the nodes from the result to the leaves, the latest
first, and hand each parent its share of the gradient. An operation is always later than those whose results
it uses, so when a node's turn comes, all its uses have been visited and its gradient is complete. It is a
loop, so a graph may be as deep as memory allows.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from . import autocast
from .hooks import hooked, hooks
from .traced import UNTRACED, Traced, Value, raw

if TYPE_CHECKING:
    from .primitives.rules import Plan

clock = count(0, -1)


class NotOurs:
    """What torch's operations have and ours do not; a ``__getattr__`` would slow down all that ours have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, node: Node | None, owner: type) -> NoReturn:
        raise AttributeError(
            f"an operation of this autograd has no {self.name!r}: it has op, parents and saved. "
            "variable.register_hook(hook) is called with the gradient of the operation's result, "
            "module.register_full_backward_hook(hook) with those of a module"
        )


class Node:
    """One recorded operation. It never refers to the variable that it made: no reference cycles.

    Attributes:
        op: the primitive; ``None`` for a leaf.
        plan: what the primitive saves and runs when just these arguments are variables.
        parents: the nodes of those arguments.
        saved: what the derivative needs (see ``Plan.slots``), ``None`` after it was freed.
        versions: each tensor among the saved values with its version counter, as it was.
        plain: the arguments held plain tensors, so that raw kernels may run.
        shape, dtype: of the result, hence of its gradient.
        age: the later an operation, the smaller.
    """

    __slots__ = (
        *("__weakref__", "age", "dtype", "op", "parents", "plain", "plan"),
        *("saved", "shape", "versions"),
    )
    op: Any  # a Primitive
    age: int
    shape: torch.Size
    dtype: torch.dtype
    parents: Sequence[Node]
    plain: bool
    plan: Plan
    saved: Sequence[Value] | None
    versions: Sequence[tuple[Tensor, int]]

    next_functions, metadata, variable = NotOurs(), NotOurs(), NotOurs()
    name, register_hook, register_prehook = NotOurs(), NotOurs(), NotOurs()

    def pull(self, g: Value, rewrap: Rewrap | None = None) -> Sequence[Value]:
        """The gradients of the parents, given the gradient of the result."""
        saved = self.saved
        if saved is None:
            raise RuntimeError(
                f"backward through {self.op} for the second time: the first sweep has freed the values it "
                "saved. Say backward(retain_graph=True) the first time"
            )
        for tensor, version in self.versions:
            if tensor._version != version and (rewrap is not None or not self._does_without(tensor, g)):
                raise RuntimeError(
                    f"{self.op} needs {self._name(tensor)} ({_look(tensor)}) for its derivative, but that "
                    f"was changed in place: it was saved at version {version} and is at version "
                    f"{tensor._version} now"
                )
        if rewrap is not None:
            return self.plan.pull(g, rewrap(self, saved))
        if self.plain and (type(g) is Tensor or not isinstance(g, Traced)):
            return self.plan.pull_plain(g, saved)
        return self.plan.pull(g, saved)

    def _does_without(self, tensor: Tensor, g: Value) -> bool:
        """Whether the kernel that comes next does not ask for a saved tensor."""
        is_next = self.plain and not isinstance(g, Traced)
        return is_next and all(i in self.plan.unneeded for i, x in enumerate(self.saved or ()) if x is tensor)

    def _name(self, tensor: Tensor) -> str:
        assert self.saved is not None
        saved = zip(self.plan.slots, self.saved, strict=True)
        return next(self.plan.name(slot) for slot, value in saved if raw(value) is tensor)

    def free(self) -> None:
        if self.versions:  # with no tensor saved, a second sweep does no harm
            self.saved, self.versions = None, ()

    def __repr__(self) -> str:
        return f"<Node {self.op or 'leaf'}, {_look(self)}>"


# Turns what a node has saved into variables again.
Rewrap: TypeAlias = Callable[[Node, Sequence[Value]], Sequence[Value]]


class Leaf(Node):
    """Where a sweep ends: a variable of the user, a tensor that requires a gradient, an input of a transform.

    Attributes:
        owner: whose ``grad`` the gradient is added to: a plain tensor, or a reference to a variable, which
            refers to its leaf. ``None`` for an input of a transform, and for what was detached.
        names: gives the name of a module's parameter (see :class:`.module.record`), asked when it is drawn.
        version: of its tensor, so that one can tell whether that was changed since.
    """

    __slots__ = ("names", "owner", "version")
    owner: Tensor | weakref.ref[Tensor] | None
    names: Sequence[Any]

    def __init__(
        self, data: Value, owner: Tensor | weakref.ref[Tensor] | None = None, names: Sequence[Any] = ()
    ) -> None:
        tensor = data if type(data) in UNTRACED else raw(data)
        if tensor.layout is not torch.strided or tensor.is_nested:
            kind = "nested tensor" if tensor.is_nested else f"tensor of layout {tensor.layout}"
            raise NotImplementedError(
                f"gradients here are dense: a {kind} cannot require one, its values can"
            )
        self.op, self.parents, self.age = None, (), next(clock)
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.owner, self.names, self.version = owner, names, version_of(tensor)

    @property
    def tensor(self) -> Tensor | None:
        """Whose ``grad`` it is, if that is still there."""
        owner = self.owner
        return owner() if type(owner) is weakref.ref else owner  # type: ignore[return-value]

    @property
    def name(self) -> str:  # type: ignore[override]
        tensor = self.tensor
        return next((found for block in reversed(self.names) if (found := block.name_of(tensor))), "")

    def hooked(self, g: Value, tensor: Tensor | None) -> Value:
        """The gradient after the users' hooks, ours or those of a plain tensor."""
        if hooks.data and self in hooks:  # type: ignore[attr-defined]
            g = hooked(g, hooks[self])
        if tensor is not None and not isinstance(tensor, Traced) and tensor._backward_hooks:
            g = hooked(g, tensor._backward_hooks)
        return g

    def accumulate(self, g: Value, tensor: Tensor | None) -> None:
        """Add to ``.grad``, in place as in torch: whoever shares its memory, such as a buffer, sees it."""
        if tensor is None or not tensor.requires_grad:  # it may have been frozen since
            return
        is_plain, old = not isinstance(tensor, Traced), tensor.grad
        if old is None:
            g = laid_out_like(tensor, g)
        elif torch.is_grad_enabled() or old.layout is not torch.strided:
            g = g + old
        else:
            old += raw(g)
            g = old
        if not is_plain:
            if g.device != raw(tensor).device:  # torch's setter looks itself
                raise RuntimeError(f"a VJP gave a gradient on {g.device} for a leaf on {raw(tensor).device}")
            tensor._grad = g  # its own setter would look at the shape once more
        elif g is not old:
            tensor.grad = g
        if functions := tensor._post_accumulate_grad_hooks:
            for function in list(functions.values()):
                if (result := function(tensor)) is not None:
                    raise TypeError(f"a hook after accumulation gives nothing, not {type(result).__name__!r}")


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; those of inference mode do not count."""
    try:
        return tensor._version
    except RuntimeError:
        return -1


def laid_out_like(parameter: Tensor, g: Value) -> Value:
    """The gradient with the strides of its parameter, as optimizers expect it; so it can be written to."""
    if isinstance(g, Traced):
        return g.clone()  # it may be written to, and the graph that it belongs to needs it
    if g.layout is not torch.strided or g.stride() == raw(parameter).stride():
        return g
    return torch.empty_like(raw(parameter)).detach().copy_(g)


def sweep(
    seeds: Iterable[tuple[Node, Value]],
    retain_graph: bool = True,
    keep: bool = False,
    rewrap: Rewrap | None = None,
    only: Mapping[Node, bool] | None = None,
) -> dict[Node, Value]:
    """Backpropagation: from the results, each with its gradient, to the leaves.

    Args:
        seeds: where to start, each with its gradient.
        retain_graph: do not free what the nodes have saved.
        keep: the gradients on the way are results too.
        rewrap: makes variables of what was saved, so that the sweep itself is recorded.
        only: the nodes on the ways to some inputs (see :func:`ways_to`); no others are visited or freed.

    Returns:
        The gradient of each leaf that one reaches, with ``keep`` of each node.
    """
    if autocast.is_on():  # the casts were recorded, so the gradients have their dtypes already
        with autocast.off():
            return sweep(seeds, retain_graph, keep, rewrap, only)
    # Within torch.autograd.detect_anomaly().
    looks_for_nan = torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled()
    gradients: dict[Node, Value] = {}
    for node, g in seeds:
        gradients[node] = gradients[node] + g if node in gradients else g
    waiting = [(node.age, node) for node in gradients if node.op is not None]
    heapify(waiting)  # the latest operation on top
    while waiting:
        node = heappop(waiting)[1]
        if hooks.data:  # type: ignore[attr-defined]
            gradients[node] = hooked(gradients[node], hooks.get(node))
        if only is not None and not only.get(node, False):
            continue
        g = gradients[node] if keep else gradients.pop(node)
        for parent, share in zip(node.parents, node.pull(g, rewrap)):  # noqa: B905 (a plan gives as many)
            if share is None or (only is not None and parent not in only):
                continue
            if looks_for_nan and bool(torch.isnan(raw(share)).any()):
                raise RuntimeError(f"{node.op} returned nan values in a gradient {_look(share)}")
            if share.shape != parent.shape or share.dtype is not parent.dtype:
                share = fit(share, parent, node.op)
            if parent in gradients:
                gradients[parent] = gradients[parent] + share
            else:
                gradients[parent] = share
                if parent.op is not None:
                    heappush(waiting, (parent.age, parent))
        if not retain_graph:
            node.free()
    return gradients


def ways_to(inputs: Iterable[Node], ends: Sequence[Node]) -> dict[Node, bool]:
    """The nodes on the ways from the ends to these inputs, and whether such a way goes on behind them."""
    ways = dict.fromkeys(inputs, False)
    first = max(node.age for node in ways)  # what is older than all of them leads to none
    found, stack = set(ends), list(ends)
    while stack:
        for parent in stack.pop().parents:
            if parent.age <= first and parent not in found:
                found.add(parent)
                stack.append(parent)
    for node in sorted(found, key=lambda node: node.age, reverse=True):  # the parents of each before it
        if any(parent in ways for parent in node.parents):
            ways[node] = True
    return ways


def fit(g: Value, node: Node, op: object) -> Value:
    """A gradient must look like the value it belongs to: undo broadcasting and promotion, refuse the rest."""
    if g.shape != node.shape:
        g = unbroadcast(g, node.shape, op)
    return g if g.dtype is node.dtype else g.to(node.dtype)


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


def _look(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
