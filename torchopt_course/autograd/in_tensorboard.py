"""A dependency graph in TensorBoard's graph tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .written import MOST_NUMBERS, in_short

if TYPE_CHECKING:
    from .graph import Graph, GraphNode


def write(graph: Graph, writer: Any) -> None:
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
