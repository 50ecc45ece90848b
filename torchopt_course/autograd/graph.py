"""The dependency graph: what was computed from what, each node once.

>>> x, y = Variable(2.0), Variable(3.0)
>>> z = x * y + torch.sin(x)
>>> print(graph(z, names={"x": x, "y": y}))
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import autocast
from .backward import seed_for
from .foreign import node_of
from .graph_hooks import one_pass
from .primitives.table import Primitive
from .reverse import Leaf, Node, fit, sweep
from .traced import Value, raw
from .values import keep_values, known_values
from .variable import BASE, Variable
from .written import MOST_NUMBERS, in_short

if TYPE_CHECKING:
    from .layout import Layout


@dataclass(frozen=True)
class GraphNode:
    """One operation, or one leaf.

    Attributes:
        key: unique in the graph; the name with a number where needed.
        label: name of the parameter or operation.
        shape: of the value.
        is_leaf: a leaf, not an operation.
        value: of leaves, of variables with a name, and of what else is still known; ``None`` otherwise.
        gradient: the gradient of the output with respect to it, if asked for.
    """

    key: str
    label: str
    shape: tuple[int, ...]
    is_leaf: bool
    value: torch.Tensor | None = None
    gradient: torch.Tensor | None = None

    @property
    def lines(self) -> list[str]:
        """What stands in its box: name, value or shape, gradient."""
        shape = " × ".join(map(str, self.shape)) if self.shape else "scalar"
        few = self.value is not None and self.value.numel() <= MOST_NUMBERS
        lines = [self.label, in_short(self.value, 4) if few and self.value is not None else shape]
        if self.gradient is not None:
            small = self.gradient.numel() <= MOST_NUMBERS
            g = self.gradient if small else self.gradient.double().norm()
            lines.append(f"{'grad' if small else '|grad|'} {in_short(g, 4)}")
        return lines


@dataclass(frozen=True)
class Edge:
    """``target`` was computed from ``source``, as its argument ``label``.

    Attributes:
        factor: the chain rule's, the derivative of ``target`` with respect to ``source``; of numbers, if
            gradients were asked for.
    """

    source: str
    target: str
    label: str
    factor: torch.Tensor | None = None

    @property
    def words(self) -> str:
        """What stands on it: the factor, or else the name of the argument."""
        return self.label if self.factor is None else in_short(self.factor, 4)


@dataclass(frozen=True)
class Graph:
    """Nodes from the leaves to the output, and the edges between them."""

    nodes: list[GraphNode]
    edges: list[Edge] = field(default_factory=list)

    def text(self) -> str:
        """One line for each node: what it is and what it was made from."""
        made_from: dict[str, list[str]] = {node.key: [] for node in self.nodes}
        for edge in self.edges:
            made_from[edge.target].append(f"{edge.label}={edge.source}")
        width = max(len(node.key) for node in self.nodes)
        lines = []
        for node in self.nodes:
            what = "leaf" if node.is_leaf else f"{node.label}({', '.join(made_from[node.key])})"
            lines.append("  ".join([node.key.ljust(width), f"[{', '.join(node.lines[1:])}]", what]))
        return "\n".join(lines)

    __str__ = text

    def dot(self) -> str:
        """In Graphviz' language."""

        def quoted(text: str) -> str:
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

        lines = ["digraph {", "  rankdir=TB", '  node [fontname="sans-serif", fontsize=11, style=filled]']
        for node in self.nodes:
            look = 'shape=box, fillcolor="#dcebd8"' if node.is_leaf else 'shape=ellipse, fillcolor="#dce6f4"'
            lines.append(f"  {quoted(node.key)} [label={quoted(chr(10).join(node.lines))}, {look}]")
        for edge in self.edges:
            lines.append(
                f"  {quoted(edge.source)} -> {quoted(edge.target)} [label={quoted(edge.words)}, fontsize=9]"
            )
        return "\n".join([*lines, "}"])

    def layout(self) -> Layout:
        """Where the boxes and edges of the picture go."""
        from .drawing import lay_out

        return lay_out(self)

    def svg(self, path: str | Path | None = None, graphviz: bool | None = None) -> str:
        """A picture, drawn by Graphviz if its program ``dot`` is there, else by this package.

        Args:
            path: where to save it as well.
            graphviz: insist on Graphviz (``True``) or do without (``False``).
        """
        if graphviz is None:
            graphviz = shutil.which("dot") is not None
        if graphviz:
            text = subprocess.run(
                ["dot", "-Tsvg"], input=self.dot(), capture_output=True, text=True, check=True
            ).stdout
        else:
            from .drawing import draw

            text = draw(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _repr_svg_(self) -> str:
        return self.svg()

    def tensorboard(self, writer: Any) -> None:
        """Into TensorBoard's graph tab: values in the names of nodes, gradients among their attributes.

        Args:
            writer: a :class:`torch.utils.tensorboard.SummaryWriter`.
        """
        from .drawing import write_to_tensorboard

        write_to_tensorboard(self, writer)


def graph(
    output: Variable | Callable[..., Variable],
    /,
    names: Mapping[str, Value] | None = None,
    gradients: bool = False,
    **inputs: Value,
) -> Graph:
    """The dependency graph of a variable, before ``backward()`` has freed it; or of a program::

        graph(lambda x, y: x * y + torch.sin(x), x=2.0, y=3.0, gradients=True)

    Nobody keeps the values on the way. Of a variable those are shown that are still known; a program is run
    here, and all of its values are kept.

    Args:
        output: the result, or a program that computes it.
        names: how to call leaves or other variables; parameters of a recorded module have their names.
        gradients: write the gradient of the output to each node, and the factor of the chain rule to each
            edge between two numbers; for scalars. Nothing is freed or changed.
        inputs: of a program, numbers or tensors, each by the name of its argument.

    Raises:
        TypeError: neither a variable nor a program that returns one; inputs, but no program.
    """
    names = dict(names or {})
    if isinstance(output, torch.Tensor) or not callable(output):
        if inputs:
            raise TypeError(f"graph(): {', '.join(inputs)} would be inputs of a program, and this is none")
        values: dict[Node, torch.Tensor] | None = None
    else:
        given = {name: _variable(x) for name, x in inputs.items()}
        names = {name: x for name, x in given.items() if isinstance(x, Variable)} | names
        with keep_values() as values, torch.enable_grad():
            output = output(**given)
    if not isinstance(output, Variable):
        raise TypeError(f"graph() draws what a Variable was computed from, not {type(output).__name__}")
    named = [v for v in names.values() if isinstance(v, Variable)]
    known = {_node(v): name for name, v in names.items() if isinstance(v, torch.Tensor) and v.requires_grad}
    order = _topological(output.node)
    values = known_values(order, [*named, output]) | (values or {})
    found: dict[Node, Value] = {}
    if gradients:
        if output.level is not BASE:
            raise TypeError("graph(gradients=True) inside of a function that is being transformed")
        with torch.no_grad(), one_pass():
            found = sweep([(output.node, seed_for(output, None))], keep=True)

    keys: dict[Node, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}
    nodes, edges = [], []
    for node in order:
        name = known.get(node) or (node.name if isinstance(node, Leaf) else "")
        label = name or (node.op.name if node.op else "leaf")
        key = label if name and label not in taken else ""
        while not key or key in taken:
            counts[label] = counts.get(label, 0) + 1
            key = f"{label}_{counts[label]}"
        taken.add(key)
        keys[node] = key
        gradient = raw(found[node]) if node in found else None
        shown = label if node.op is None or not name else f"{name} = {node.op.name}"
        looks = (key, shown, tuple(node.shape), node.op is None)
        nodes.append(GraphNode(*looks, values.get(node), gradient))
        if node.op is not None:
            factors = _factors(node, gradient)
            for i, parent, factor in zip(node.plan.variables, node.parents, factors, strict=True):
                edges.append(Edge(keys[parent], key, _argument(node.op, i), factor))
    return Graph(nodes, edges)


def _factors(node: Node, gradient: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
    """The derivatives of a number with respect to each that it was made from, on its gradient's device."""
    if gradient is None or gradient.dim():
        return [None] * len(node.parents)
    with torch.no_grad(), autocast.off():
        shares = node.pull(torch.ones_like(gradient))
    return [
        None if share is None or parent.shape else raw(fit(share, parent, node.op))
        for share, parent in zip(shares, node.parents, strict=True)
    ]


def _variable(x: Value) -> Value:
    """An input of a program: a number is a variable, a tensor of integers (labels, indices) is none."""
    tensor = torch.as_tensor(x, dtype=None if isinstance(x, torch.Tensor) else torch.get_default_dtype())
    return Variable(tensor) if tensor.is_floating_point() and not isinstance(x, Variable) else x


def _node(value: Value) -> Node:
    return value.node if isinstance(value, Variable) else node_of(value)


def _argument(op: Primitive, i: int) -> str:
    parameters = op.parameters
    if op.variadic and i >= len(parameters) - 1:
        return f"{parameters[-1]}[{i - len(parameters) + 1}]"
    return parameters[i]


def _topological(root: Node) -> list[Node]:
    """All nodes, each after its parents and only once, without recursion."""
    order: list[Node] = []
    seen = {root}
    stack: list[tuple[Node, int]] = [(root, 0)]
    while stack:
        node, next_parent = stack.pop()
        for i in range(next_parent, len(node.parents)):
            parent = node.parents[i]
            if parent not in seen:
                seen.add(parent)
                stack += [(node, i + 1), (parent, 0)]
                break
        else:
            order.append(node)
    return order
