"""The dependency graph: what was computed from what, each node once.

>>> x, y = Variable(2.0), Variable(3.0)
>>> z = x * y + torch.sin(x)
>>> print(graph(z, names={"x": x, "y": y}))
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch

from .reverse import BASE, Leaf, Node, seed_for, sweep
from .variable import Value, Variable, raw


@dataclass(frozen=True)
class GraphNode:
    """One operation, or one leaf.

    Attributes:
        key: unique in the graph; the name with a number where needed.
        label: name of the parameter or operation.
        shape: of the value.
        is_leaf: a leaf, not an operation.
        gradient: the gradient of the output with respect to it, if asked for.
    """

    key: str
    label: str
    shape: tuple[int, ...]
    is_leaf: bool
    gradient: torch.Tensor | None = None

    @property
    def lines(self) -> list[str]:
        """What stands in its box."""
        shape = " × ".join(map(str, self.shape)) if self.shape else "scalar"
        lines = [self.label, shape]
        if self.gradient is not None:
            g = self.gradient
            lines.append(
                f"grad {g.item():.4g}" if g.numel() == 1 else f"|grad| {float(g.double().norm()):.4g}"
            )
        return lines


@dataclass(frozen=True)
class Edge:
    """``target`` was computed from ``source``, as its argument ``label``."""

    source: str
    target: str
    label: str


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
                f"  {quoted(edge.source)} -> {quoted(edge.target)} [label={quoted(edge.label)}, fontsize=9]"
            )
        return "\n".join([*lines, "}"])

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
            text = _draw(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _repr_svg_(self) -> str:
        return self.svg()

    def tensorboard(self, writer: Any) -> None:
        """Into TensorBoard's graph tab.

        Args:
            writer: a :class:`torch.utils.tensorboard.SummaryWriter`.
        """
        from tensorboard.compat.proto.attr_value_pb2 import AttrValue  # type: ignore[import-untyped]
        from tensorboard.compat.proto.config_pb2 import RunMetadata  # type: ignore[import-untyped]
        from tensorboard.compat.proto.graph_pb2 import GraphDef  # type: ignore[import-untyped]
        from tensorboard.compat.proto.node_def_pb2 import NodeDef  # type: ignore[import-untyped]
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto  # type: ignore[import-untyped]
        from tensorboard.compat.proto.versions_pb2 import VersionDef  # type: ignore[import-untyped]

        inputs: dict[str, list[str]] = {node.key: [] for node in self.nodes}
        labels: dict[str, list[str]] = {node.key: [] for node in self.nodes}
        for edge in self.edges:
            inputs[edge.target].append(_scope(edge.source))
            labels[edge.target].append(edge.label)
        definitions = []
        for node in self.nodes:
            shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in node.shape])
            attributes = {"_output_shapes": AttrValue(list=AttrValue.ListValue(shape=[shape]))}
            attributes["arguments"] = AttrValue(s=", ".join(labels[node.key]).encode())
            if node.gradient is not None:
                attributes["gradient"] = AttrValue(s=node.lines[-1].encode())
            kind = "Parameter" if node.is_leaf else node.label
            definitions.append(
                NodeDef(name=_scope(node.key), op=kind, input=inputs[node.key], attr=attributes)
            )
        definition = GraphDef(node=definitions, versions=VersionDef(producer=22))
        writer._get_file_writer().add_graph((definition, RunMetadata()))


def _scope(key: str) -> str:
    """TensorBoard groups names by slashes: layer1.0.weight lies in layer1/0."""
    return key.replace(".", "/").replace(" ", "_")


def graph(output: Variable, names: Mapping[str, Value] | None = None, gradients: bool = False) -> Graph:
    """The dependency graph of a variable, before ``backward()`` has freed it.

    Args:
        output: the result.
        names: how to call leaves or other variables; parameters of a recorded module have their names.
        gradients: write the gradient of the output to each node; for scalars. Nothing is freed or changed.

    Raises:
        TypeError: not a variable.
    """
    if not isinstance(output, Variable):
        raise TypeError(f"graph() draws what a Variable was computed from, not {type(output).__name__}")
    known = {v.node: name for name, v in (names or {}).items() if isinstance(v, Variable)}
    order = _topological(output.node)
    found: dict[Node, Value] = {}
    if gradients:
        if output.level is not BASE:
            raise TypeError("graph(gradients=True) inside of a function that is being transformed")
        with torch.no_grad():
            sweep([(output.node, seed_for(output, None))], found.__setitem__, retain_graph=True)

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
        nodes.append(GraphNode(key, shown, tuple(node.shape), node.op is None, gradient))
        for i, parent in enumerate(node.parents):
            if parent is not None and node.op is not None:
                edges.append(Edge(keys[parent], key, _argument(node, i)))
    return Graph(nodes, edges)


def _argument(node: Node, i: int) -> str:
    assert node.op is not None
    parameters = node.op.parameters
    if node.op.variadic and i >= len(parameters) - 1:
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
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack += [(node, i + 1), (parent, 0)]
                break
        else:
            order.append(node)
    return order


# -- a drawing in layers -------------------------------------------------------------------------------------

ROW, GAP, LINE, LETTER = 96.0, 28.0, 15.0, 7.2


def _draw(graph: Graph) -> str:
    """Each node below all that it was made from, neighbours close together."""
    layer: dict[str, int] = {}
    parents: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    children: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in graph.edges:
        parents[edge.target].append(edge.source)
        children[edge.source].append(edge.target)
    for node in graph.nodes:  # in topological order
        layer[node.key] = 1 + max((layer[p] for p in parents[node.key]), default=-1)
    for node in reversed(graph.nodes):  # leaves move down to where they are used
        if node.is_leaf and children[node.key]:
            layer[node.key] = min(layer[c] for c in children[node.key]) - 1

    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in graph.nodes:
        rows[layer[node.key]].append(node.key)
    place = {key: float(i) for row in rows for i, key in enumerate(row)}
    for sweep_number in range(8):  # order each row by the mean place of its neighbours, down and up in turns
        near = parents if sweep_number % 2 == 0 else children
        for row in rows if sweep_number % 2 == 0 else reversed(rows):
            row.sort(
                key=lambda key: sum(place[n] for n in near[key]) / len(near[key]) if near[key] else place[key]
            )
            place.update({key: float(i) for i, key in enumerate(row)})

    look = {node.key: node for node in graph.nodes}
    width = {key: 24 + LETTER * max(map(len, node.lines)) for key, node in look.items()}
    height = {key: 12 + LINE * len(node.lines) for key, node in look.items()}
    total = max(sum(width[key] + GAP for key in row) for row in rows) + GAP
    centre: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        x = (total - sum(width[key] + GAP for key in row) + GAP) / 2
        for key in row:
            centre[key] = (x + width[key] / 2, 50 + depth * ROW)
            x += width[key] + GAP

    bottom = 50 + (len(rows) - 1) * ROW + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {bottom:.0f}" width="{total:.0f}" '
        f'height="{bottom:.0f}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for edge in graph.edges:
        (x1, y1), (x2, y2) = centre[edge.source], centre[edge.target]
        y1, y2 = y1 + height[edge.source] / 2, y2 - height[edge.target] / 2
        bend = (y2 - y1) / 2
        parts.append(
            f'<path d="M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} '
            f'{x2:.1f} {y2:.1f}" fill="none" stroke="#667" marker-end="url(#arrow)"/>'
        )
        parts.append(
            f'<text x="{(x1 + x2) / 2 + 4:.1f}" y="{(y1 + y2) / 2:.1f}" font-size="10" fill="#667">'
            f"{escape(edge.label)}</text>"
        )
    for key, node in look.items():
        x, y = centre[key]
        w, h = width[key], height[key]
        fill, corner = ("#dcebd8", 2) if node.is_leaf else ("#dce6f4", h / 2)
        parts.append(
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{corner}" '
            f'fill="{fill}" stroke="#667"><title>{escape(key)}</title></rect>'
        )
        for i, line in enumerate(node.lines):
            weight = ' font-weight="bold"' if i == 0 else ' fill="#445"'
            parts.append(
                f'<text x="{x:.1f}" y="{y - h / 2 + 6 + LINE * (i + 0.75):.1f}" text-anchor="middle"{weight}>'
                f"{escape(line)}</text>"
            )
    return "\n".join([*parts, "</svg>"])
