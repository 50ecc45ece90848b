"""What torch's own autograd has recorded is a part of our graph as well.

A plain tensor that requires a gradient is an input: it gets a leaf, and its ``.grad``. A plain tensor that
torch computed from such ones is an operation whose derivative torch knows. For these, and for a user's
``torch.autograd.Function``, ``torch.autograd`` is asked; in this file, and in no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .distributed import meet
from .reverse import Leaf, Node, Rewrap, clock
from .traced import UNTRACED, Traced, Value, raw, recording

# The leaf of a plain tensor by its id. The leaf keeps the tensor, and lives as long as a graph needs it.
_leaves: dict[int, weakref.ref[Leaf]] = {}
# The operation that stands for a tensor that torch computed, by the tensor's place in torch's graph.
_torch_nodes: weakref.WeakValueDictionary[tuple[Any, int], TorchNode] = weakref.WeakValueDictionary()
# Whose gradient a tensor is given to torch for, by the tensor's id, for as long as the tensor lives.
_standing: dict[int, tuple[weakref.ref[Tensor], Node]] = {}


_grad = torch.autograd.grad  # before functions.py puts a question before it
functorch_is_on = torch._C._are_functorch_transforms_active


def is_differentiating() -> bool:
    """Whether torch itself is, by torch.func or torch.autograd.forward_ad."""
    return functorch_is_on() or forward_ad._current_level >= 0


def node_of(tensor: Tensor) -> Node:
    """Where the gradient of a tensor that requires one is sent; one leaf for each plain one."""
    if type(tensor) not in UNTRACED and isinstance(tensor, Traced):  # met by torch's C++ code
        if tensor.level.depth > 0:
            raise past_the_table()
        return tensor.node  # type: ignore[attr-defined, no-any-return]
    if isinstance(tensor, GradientEdge):
        raise NotImplementedError("a GradientEdge of a graph that ends in variables; give the tensor itself")
    if tensor.grad_fn is not None:
        edge = tensor.grad_fn, tensor.output_nr
        node = _torch_nodes.get(edge)
        if node is None or node.edges is None:
            node = _torch_nodes[edge] = TorchNode([tensor])
        return node
    meet(tensor)
    known = _leaves.get(id(tensor))
    leaf = None if known is None else known()
    if leaf is not None and leaf.shape == tensor.shape and leaf.dtype is tensor.dtype:
        return leaf
    if _standing:
        standing = _standing.get(id(tensor))
        if standing is not None and standing[0]() is tensor:
            return standing[1]
    if tensor._base is not None and tensor._base.requires_grad:
        return Leaf(tensor)  # a view that was taken under no_grad: torch sends no gradient there either
    leaf = Leaf(tensor, tensor, recording.blocks)
    if len(_leaves) > 10_000:
        for key in [key for key, reference in _leaves.items() if reference() is None]:
            del _leaves[key]
    _leaves[id(tensor)] = weakref.ref(leaf)
    return leaf


def stand_for(tensor: Tensor, node: Node) -> None:
    """Let gradients of this tensor, one of ours that torch is given, go to the node."""
    key = id(tensor)
    _standing[key] = weakref.ref(tensor, lambda dead: _forget(key, dead)), node


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    if key in _standing and _standing[key][0] is dead:  # or another tensor has the id by now
        del _standing[key]


class TorchOperation:
    """In place of a primitive: how torch calls what it has recorded last."""

    variadic, parameters, symbolic = True, ("inputs",), None

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class TorchNode(Node):
    """Tensors that torch computed, as one operation on the leaves of torch's graph.

    Of several, each is a :class:`Part`, and the gradient that arrives here is :class:`Parts`.
    """

    __slots__ = ("edges", "leaves")

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        first = tensors[0]
        assert first.grad_fn is not None
        self.op = TorchOperation(f"torch's {first.grad_fn.name()}")
        self.shape, self.dtype = first.shape, first.dtype
        # Not the tensors themselves, whose memory may be written to.
        self.edges: list[GradientEdge] | None = [get_gradient_edge(tensor) for tensor in tensors]
        self.leaves = leaves_of(tensors)
        self.parents = [node_of(leaf) for leaf in self.leaves]
        self.age = next(clock)  # later than theirs

    @property
    def variables(self) -> range:
        return range(len(self.parents))

    @property
    def plan(self) -> TorchNode:  # type: ignore[override]
        """As a plan, it knows which arguments are variables: all."""
        return self

    def pull(self, g: Value, rewrap: Rewrap | None = None) -> Sequence[Value]:
        if self.edges is None:
            raise RuntimeError(
                f"backward through {self.op} for the second time: the first sweep has freed it. Say "
                "backward(retain_graph=True) the first time"
            )
        if not self.leaves:
            return []
        for leaf in self.leaves:
            if not isinstance(leaf, Traced) and leaf._backward_hooks:
                raise NotImplementedError(
                    f"the hook of a tensor {tuple(leaf.shape)} would be called for the part of the gradient "
                    "that comes through torch's graph alone; compute everything inside of record()"
                )
        return gradients_by_torch({self: g}, self.leaves, rewrap)

    def _for_torch(self, g: Value, rewrap: Rewrap | None) -> Tensor:
        """A gradient that torch may compute with, and whose own past is found again if it has one."""
        if not isinstance(g, Traced):
            return g  # type: ignore[no-any-return]
        if rewrap is None or isinstance(g.data, Traced):
            raise NotImplementedError(
                f"{self.op} was recorded by torch, which a transform of this package cannot differentiate "
                "again; compute it inside of record(), or pass x.detach()"
            )
        plain: Tensor = raw(g).detach().requires_grad_()
        stand_for(plain, g.node)  # type: ignore[attr-defined]
        return plain

    @property
    def grad_fn(self) -> Any:
        return None if self.edges is None else self.edges[0].node

    def free(self) -> None:
        self.edges = None


def gradients_by_torch(
    of: Mapping[TorchNode, Value], inputs: Sequence[Tensor] | Sequence[GradientEdge], rewrap: Rewrap | None
) -> Sequence[Value]:
    """Of what torch has recorded: from the gradients of some of its tensors to those of others."""
    edges, seeds = [], []
    for node, g in of.items():
        assert node.edges is not None
        for i, each in (g.given if isinstance(g, Parts) else {0: g}).items():
            edges.append(node.edges[i])
            seeds.append(node._for_torch(each, rewrap))
    with torch._C.DisableTorchFunction():  # a leaf may be a variable, and record() open
        gradients = _grad(
            edges, inputs, seeds, retain_graph=True, create_graph=rewrap is not None, allow_unused=True
        )
        # A user's backward() may have kept what it returned; torch's zeros may have no memory (that of sgn).
        return [None if g is None else g.clone() for g in gradients]


class Part(Node):
    """One of several results of a :class:`TorchNode`."""

    __slots__ = ("number",)

    def __init__(self, whole: TorchNode, number: int, tensor: Tensor) -> None:
        self.op, self.parents, self.age, self.number = whole.op, [whole], next(clock), number
        self.shape, self.dtype = tensor.shape, tensor.dtype

    variables = range(1)

    @property
    def grad_fn(self) -> Any:
        edges = self.parents[0].edges  # type: ignore[attr-defined]
        return None if edges is None else edges[self.number].node

    @property
    def plan(self) -> Part:  # type: ignore[override]
        return self

    def pull(self, g: Value, rewrap: Rewrap | None = None) -> Sequence[Value]:
        return (Parts(self.parents[0], {self.number: g}),)

    def free(self) -> None:
        pass


class Parts:
    """Gradients of some of the results of a node."""

    def __init__(self, node: Node, given: dict[int, Value]) -> None:
        self.shape, self.dtype, self.given, self._node = node.shape, node.dtype, given, node

    def __add__(self, other: Parts) -> Parts:
        total = dict(self.given)
        for i, g in other.given.items():
            total[i] = total[i] + g if i in total else g
        return Parts(self._node, total)


def reaches_variables(ends: Iterable[Tensor | GradientEdge]) -> bool:
    """Whether torch has computed these from a variable, so that the sweep must go on here.

    So does code in C++, which does not ask whom it computes with: scripts, extensions, ``torch.as_tensor``.
    """
    known = [end for end in ends if not isinstance(end, Traced)]
    return any(isinstance(leaf, Traced) or id(leaf) in _standing for leaf in leaves_of(known))


def refuse_past_the_table(values: Iterable[Value]) -> None:
    """What C++ code has computed from a value of a transform does not know of its derivative there."""
    known = [x for x in values if isinstance(x, Tensor) and not isinstance(x, Traced) and x.requires_grad]
    if any(isinstance(leaf, Traced) and leaf.level.depth > 0 for leaf in leaves_of(known)):
        raise past_the_table()


def past_the_table() -> NotImplementedError:
    return NotImplementedError(
        "torch's C++ code (torch.jit, torch.func.vmap, torch.as_tensor, an extension) has computed with "
        "a variable inside of a function that is being transformed, where nobody can differentiate it; use "
        "Variable and backward(), or torch functions that are called from Python"
    )


_Accumulates: Any = torch._C._functions.AccumulateGrad


def leaves_of(ends: Iterable[Tensor | GradientEdge]) -> list[Tensor]:
    """The tensors that require a gradient from which torch computed these.

    Each backward pass of torch's own asks for them, so this is short: it takes a twentieth of that pass.

    Raises:
        RuntimeError: one is a variable, and was written to since torch computed with it; torch's graph leads
            to what it is now.
    """
    leaves: dict[int, Tensor] = {}
    functions: list[Any] = [end.node if isinstance(end, GradientEdge) else end.grad_fn for end in ends]
    seen: set[Any] = {None, *functions}
    stack = [function for function in functions if function is not None]
    while stack:
        function = stack.pop()
        for each, _ in function.next_functions:
            if type(each) is _Accumulates:
                leaf = each.variable
                leaves[id(leaf)] = leaf
                if isinstance(leaf, Traced) and function._sequence_nr() < leaf.written_at:
                    raise RuntimeError(
                        f"a variable {tuple(leaf.shape)} was written to in place after torch's C++ code had "
                        f"computed with it ({function.name()}); give that code x.clone()"
                    )
            elif each not in seen:
                seen.add(each)
                stack.append(each)
    return list(leaves.values())
