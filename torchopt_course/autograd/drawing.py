"""A dependency graph as a picture: an SVG without Graphviz, and in TensorBoard's graph tab."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .layout import Line, layered
from .written import MOST_NUMBERS, in_short

if TYPE_CHECKING:
    from .graph import Graph, GraphNode
    from .layout import Layout

LINE, LETTER = 15.0, 7.2  # of the text in a box
INK, LEAF, OPERATION = "#667", "#dcebd8", "#dce6f4"


def lay_out(graph: Graph) -> Layout:
    """Places for the boxes, as large as their text, and for the edges."""
    sizes = {
        node.key: (24 + LETTER * max(map(len, node.lines)), 12 + LINE * len(node.lines))
        for node in graph.nodes
    }
    leaves = frozenset(node.key for node in graph.nodes if node.is_leaf)
    return layered(sizes, [(edge.source, edge.target, edge.words) for edge in graph.edges], leaves)


def draw(graph: Graph) -> str:
    """Each node below all that it was made from; leaves are square, operations round."""
    layout = graph.layout()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
        f'width="{layout.width:.0f}" height="{layout.height:.0f}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for edge, line in zip(graph.edges, layout.lines, strict=True):
        parts.append(
            f'<path d="{path(line)}" fill="none" stroke="{INK}" marker-end="url(#arrow)">'
            f"<title>{escape(f'{edge.source} → {edge.target} ({edge.label})')}</title></path>"
        )
    for edge, line in zip(graph.edges, layout.lines, strict=True):
        x, y = line.points[-1]
        x, anchor = (x - 5, "end") if line.label_on_left else (x + 5, "start")
        parts.append(
            f'<text x="{x:.1f}" y="{y - 7:.1f}" font-size="10" fill="{INK}" text-anchor="{anchor}">'
            f"{escape(edge.words)}</text>"
        )
    for node in graph.nodes:
        x, y, w, h = layout.boxes[node.key]
        fill, corner = (LEAF, 2) if node.is_leaf else (OPERATION, min(w, h) / 3)
        parts.append(
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" '
            f'rx="{corner:.0f}" fill="{fill}" stroke="{INK}"><title>{escape(node.key)}</title></rect>'
        )
        for i, text in enumerate(node.lines):
            weight = ' font-weight="bold"' if i == 0 else ' fill="#445"'
            parts.append(
                f'<text x="{x:.1f}" y="{y - h / 2 + 6 + LINE * (i + 0.75):.1f}" text-anchor="middle"{weight}>'
                f"{escape(text)}</text>"
            )
    return "\n".join([*parts, "</svg>"])


def path(line: Line) -> str:
    """In SVG's language."""
    words = [("M", line.points[:1]), *(("C" if len(step) > 1 else "L", step) for step in line.steps())]
    return " ".join(f"{word}{' '.join(f'{x:.1f} {y:.1f}' for x, y in points)}" for word, points in words)


def write_to_tensorboard(graph: Graph, writer: Any) -> None:
    """Each node with the shape and, where they are known, value and gradient of what it computed."""
    from tensorboard.compat.proto.attr_value_pb2 import AttrValue
    from tensorboard.compat.proto.config_pb2 import RunMetadata
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.versions_pb2 import VersionDef

    names = {node.key: _scope(node) for node in graph.nodes}
    inputs: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    labels: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in graph.edges:
        inputs[edge.target].append(names[edge.source])
        labels[edge.target].append(edge.label)
    definitions = []
    for node in graph.nodes:
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in node.shape])
        attributes = {"_output_shapes": AttrValue(list=AttrValue.ListValue(shape=[shape]))}
        attributes["arguments"] = AttrValue(s=", ".join(labels[node.key]).encode())
        for what, tensor in (("value", node.value), ("gradient", node.gradient)):
            if tensor is not None:
                attributes[what] = AttrValue(s=in_short(tensor).encode())
        kind = "Parameter" if node.is_leaf else node.label
        definitions.append(NodeDef(name=names[node.key], op=kind, input=inputs[node.key], attr=attributes))
    definition = GraphDef(node=definitions, versions=VersionDef(producer=22))
    writer._get_file_writer().add_graph((definition, RunMetadata()))


def _scope(node: GraphNode) -> str:
    """TensorBoard shows names: mul_1=6. It groups them by slashes: layer1.0.weight lies in layer1/0."""
    name = node.key.replace(".", "/")
    if node.value is not None and node.value.numel() <= MOST_NUMBERS:
        name += f"={in_short(node.value, 4)}"
    return name.replace(", ", ",").replace(" ", "_")
