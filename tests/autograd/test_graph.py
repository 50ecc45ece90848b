# ruff: noqa: E501
"""The dependency graph as text, DOT, SVG and for TensorBoard."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import Variable, graph


@pytest.fixture
def drawn():
    x, y = Variable(2.0), Variable(3.0)
    return graph(x * y + torch.sin(x), names={"x": x, "y": y}, gradients=True)


def test_the_lecture_s_graph(drawn):
    assert {(e.source, e.target, e.label) for e in drawn.edges} == {
        ("x", "mul_1", "a"), ("y", "mul_1", "b"), ("x", "sin_1", "x"), ("mul_1", "add_1", "a"), ("sin_1", "add_1", "b"),
    }  # fmt: skip
    gradients = {node.key: node.gradient.item() for node in drawn.nodes}
    assert gradients == pytest.approx({"x": 3 + math.cos(2.0), "y": 2, "mul_1": 1, "sin_1": 1, "add_1": 1})
    assert drawn.text().splitlines()[-1].endswith("add(a=mul_1, b=sin_1)")


def test_drawing_changes_nothing():
    x = Variable([1.0, 2.0])
    z = (x * x).sum()
    graph(z, gradients=True)
    assert x.grad is None
    z.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_dot_and_svg_have_every_node_and_edge(drawn, tmp_path):
    dot = drawn.dot()
    assert dot.count(" -> ") == 5
    assert dot.count("shape=box") == 2
    text = drawn.svg(tmp_path / "graph.svg", graphviz=False)
    assert (tmp_path / "graph.svg").read_text() == text
    svg = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    boxes = [r for r in svg.iter(f"{name}rect") if r.find(f"{name}title") is not None]
    assert [b.find(f"{name}title").text for b in boxes] == [n.key for n in drawn.nodes]
    assert len([p for p in svg.iter(f"{name}path") if p.get("stroke")]) == 5
    # No box covers another.
    spans = [[float(b.get(a)) for a in ("x", "y", "width", "height")] for b in boxes]
    for i, (x, y, w, h) in enumerate(spans):
        for u, v, m, n in spans[i + 1 :]:
            assert x + w <= u or u + m <= x or y + h <= v or v + n <= y


def test_names_are_escaped():
    x = Variable(1.0)
    drawn = graph(x * 2, names={'a "<&': x})
    assert r"a \"<&" in drawn.dot()
    ElementTree.fromstring(drawn.svg(graphviz=False))


def test_a_module_in_tensorboard_s_graph_tab(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from torch.utils.tensorboard import SummaryWriter

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with autograd.record(model):
        loss = F.cross_entropy(model(torch.randn(3, 1, 4, 4)), torch.zeros(3, dtype=torch.long))
    with SummaryWriter(tmp_path) as writer:
        graph(loss, gradients=True).tensorboard(writer)
    events = EventAccumulator(str(tmp_path)).Reload()
    definition = GraphDef.FromString(events.Graph().SerializeToString())
    nodes = {node.name: node for node in definition.node}
    assert list(nodes["linear_1"].input) == ["flatten_1", "3/weight", "3/bias"]
    assert nodes["0/weight"].op == "Parameter"
    assert [d.size for d in nodes["0/weight"].attr["_output_shapes"].list.shape[0].dim] == [2, 1, 3, 3]


def test_only_variables_have_a_graph():
    with pytest.raises(TypeError, match="not Tensor"):
        graph(torch.ones(2))
