"""``backward()`` and ``torch.autograd.grad``: the sweep of :mod:`.reverse` from variables to their leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .accumulation import is_added_by_torch, let_torch_add
from .dispatch import means
from .foreign import TorchNode, gradients_by_torch, node_of
from .graph_hooks import one_pass
from .reverse import Leaf, Node, sweep, ways_to
from .traced import Traced, Value, raw
from .variable import BASE, Variable, tracked_variable


@means(Tensor.backward, checked=True)
def backward(
    self: Value,
    gradient: Value = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add d(self)/d(leaf) to the ``grad`` of every leaf that this variable was computed from.

    Args:
        gradient: the cotangent to start with, shaped like this variable; 1 for a scalar.
        retain_graph: keep what the sweep would free, for another one (default: ``create_graph``).
        create_graph: record the sweep itself, so that gradients can be differentiated again.
        inputs: whose ``grad`` to write to, one or a sequence (default: all leaves).

    Raises:
        RuntimeError: not a scalar and no ``gradient``; a gradient of another shape; a second sweep
            through what the first one has freed; a saved tensor that was changed in place since.
    """
    backward_all([self], [gradient], retain_graph, create_graph, inputs)


def backward_all(
    outputs: Sequence[Value],
    seeds: Sequence[Value],
    retain_graph: bool | None,
    create_graph: bool,
    inputs: Any,
) -> None:
    """The same for several results, in one sweep."""
    only = None
    if inputs is not None:
        inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not inputs:
            raise RuntimeError("backward(inputs=...) must be one or more tensors")
        only = [_asked_for(x) for x in inputs]
    ends = [(_node(y), seed_for(y, seed)) for y, seed in zip(outputs, seeds, strict=True)]
    recording = torch.is_grad_enabled()
    torch._C._set_grad_enabled(create_graph)  # at once: as a context manager it takes longer
    try:
        # Hooks first: when one of them raises, no gradient has been changed.
        arrived: list[tuple[Leaf, Tensor | None, Value]] = []
        left_to_torch: dict[Tensor, Value] = {}
        with one_pass():
            gradients = _sweep(ends, retain_graph, create_graph, inputs=only)
            for leaf, g in gradients.items():
                if leaf.op is None:
                    tensor = leaf.tensor  # type: ignore[attr-defined]
                    if is_added_by_torch(tensor):
                        left_to_torch[tensor] = g
                    else:
                        arrived.append((leaf, tensor, leaf.hooked(g, tensor)))  # type: ignore[attr-defined, arg-type]
            if left_to_torch:
                let_torch_add(left_to_torch)
        # The sweep may hand the same memory to several leaves (z = x + y); whoever writes into x.grad
        # later must not change y.grad, nor what the caller passed in or a recorded sweep has saved.
        taken = {
            raw(seed).untyped_storage().data_ptr()
            for (_, seed), given in zip(ends, seeds, strict=True)
            if create_graph or given is not None
        }
        for leaf, tensor, g in arrived:
            plain = raw(g)
            memory = plain.untyped_storage().data_ptr() if plain.layout is torch.strided else None
            leaf.accumulate(g.clone() if memory in taken else g, tensor)
            taken.add(memory)
    finally:
        torch._C._set_grad_enabled(recording)


def _asked_for(x: Value) -> Node:
    """The node of one of ``backward(inputs=...)``; a result keeps its gradient from now on, as in torch."""
    node = _node(x)
    if not isinstance(node, Leaf):
        if not isinstance(x, Variable):
            raise NotImplementedError(
                "backward(inputs=...) of a tensor that torch computed; use torch.autograd.grad"
            )
        x.retain_grad()
    return node


@means(torch.autograd.grad, checked=True)
def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Value, ...]:
    """What ``torch.autograd.grad`` does, of variables; nothing is added to any ``.grad``."""
    if is_grads_batched:
        return _one_by_one(
            outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads
        )
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = seeds_of(grad_outputs, len(outputs))
    ends = [(_node(y), seed_for(y, seed)) for y, seed in zip(outputs, seeds, strict=True)]
    nodes = [_node(x) for x in inputs]
    with torch.set_grad_enabled(create_graph), one_pass():
        keep = not all(isinstance(node, Leaf) for node in nodes)
        by_torch = any(isinstance(node, TorchNode) for node in nodes)
        gradients = (
            _sweep(ends, True, create_graph, keep)
            if by_torch
            else _sweep(ends, retain_graph, create_graph, keep, inputs=nodes)
        )
        for node in {node for node in nodes if isinstance(node, Leaf) and node in gradients}:
            gradients[node] = node.hooked(gradients[node], node.tensor)
        results: list[Value] = [
            _inside_of_torchs_graph(node, gradients, create_graph)
            if isinstance(node, TorchNode)
            else gradients.get(node)
            for node in nodes
        ]
    for i, (g, x) in enumerate(zip(results, inputs, strict=True)):
        if g is None and materialize_grads:
            results[i] = torch.zeros_like(x)
        elif g is None and not allow_unused:
            raise RuntimeError(
                f"input {i} of torch.autograd.grad was not used in the graph. Say allow_unused=True if that "
                "is desired"
            )
    return tuple(results)


def _one_by_one(
    outputs: Any, inputs: Any, grad_outputs: Any, retain_graph: bool | None, *how: Any
) -> tuple[Value, ...]:
    """A first dimension of ``grad_outputs`` counts vectors, and that of the result their products."""
    several = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or ())
    counts = {len(g) for g in several if g is not None and g.shape}
    if len(counts) != 1:
        raise RuntimeError(
            f"is_grads_batched=True: as many gradients of each result are needed, not {counts}"
        )
    (count,) = counts
    create_graph, allow_unused, materialize_grads = how
    rows = [
        grad(
            outputs, inputs, [None if g is None else g[i] for g in several], i + 1 < count or retain_graph,
            create_graph, True, allow_unused or materialize_grads,
        )
        for i in range(count)
    ]  # fmt: skip
    xs = [inputs] if isinstance(inputs, Tensor) else inputs
    none = [torch.zeros_like(x) if materialize_grads else None for x in xs]  # one for all, as in torch
    columns = zip(none, *rows, strict=True)
    return tuple(zero if column[0] is None else torch.stack(column) for zero, *column in columns)


def _inside_of_torchs_graph(node: TorchNode, gradients: Mapping[Node, Value], create_graph: bool) -> Value:
    """The gradient of a tensor that torch computed, through all that torch has made of it."""
    assert node.edges is not None
    reached = {each: g for each, g in gradients.items() if isinstance(each, TorchNode)}
    return gradients_by_torch(reached, node.edges, rewrap if create_graph else None)[0] if reached else None


def _node(value: Value) -> Node:
    """Of a variable, or of a plain tensor that requires a gradient."""
    if isinstance(value, Variable) and value.requires_grad:
        if value.level is not BASE:
            raise RuntimeError(
                "backward() inside of a function that is being transformed; use autograd.grad there"
            )
        return value.node
    if not getattr(value, "requires_grad", isinstance(value, tuple)):  # a tuple: an edge of torch's graph
        raise RuntimeError("one of the differentiated tensors does not require a gradient")
    return node_of(value)


def _sweep(
    ends: list[tuple[Node, Value]],
    retain_graph: bool | None,
    create_graph: bool,
    keep: bool = False,
    inputs: Iterable[Node] | None = None,
) -> dict[Node, Value]:
    retain = create_graph if retain_graph is None else retain_graph
    only = None if inputs is None else ways_to(inputs, [node for node, _ in ends])
    return sweep(ends, retain, keep, rewrap if create_graph else None, only)


def rewrap(node: Node, saved: Sequence[Value]) -> Sequence[Value]:
    """What a node has saved of its arguments and its result as variables again, with their past."""
    pasts = [*node.parents, node]
    return [
        value if past is None or value is None else tracked_variable(value, BASE, pasts[past])
        for value, past in zip(saved, node.plan.pasts, strict=True)
    ]


def seeds_of(given: Any, count: int) -> list[Value]:
    """The gradients to start with, one for each result; ``None`` stands for all of them."""
    seeds = [given] if isinstance(given, Tensor) else [None] * count if given is None else list(given)
    if len(seeds) != count:
        raise RuntimeError(f"got {count} tensors and {len(seeds)} gradients")
    return seeds


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
    if not isinstance(gradient, Tensor):
        raise TypeError(f"gradients can be either Tensors or Nones, but got {type(gradient).__name__}")
    if gradient.is_complex():
        raise RuntimeError(f"gradient is {gradient.dtype}, but the result is real")
    if not isinstance(gradient, Traced) and not (torch.is_grad_enabled() and gradient.requires_grad):
        gradient = gradient.detach()
    if gradient.shape != output.shape:
        raise RuntimeError(
            f"gradient has shape {tuple(gradient.shape)}, but the result has shape {tuple(output.shape)}"
        )
    device = raw(output).device
    if gradient.shape and raw(gradient).device != device:  # torch moves a number, and nothing else
        raise RuntimeError(f"invalid gradient: expected device {device} but got {raw(gradient).device}")
    return gradient.to(device, output.dtype)
