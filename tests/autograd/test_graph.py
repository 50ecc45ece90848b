# ruff: noqa: E501
"""The dependency graph as text, DOT, SVG and for TensorBoard."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import Variable, graph, variable
from torchopt_course.autograd.layout import layered


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


def test_the_factors_on_the_edges_are_those_of_the_chain_rule():
    def program(x, y):
        return (x * y + torch.sin(x)) / torch.exp(y) - x

    x, y = torch.tensor(2.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    drawn = graph(program, x=x, y=y, gradients=True)
    sums = {node.key: 0.0 for node in drawn.nodes} | {drawn.nodes[-1].key: 1.0}
    places = {node.key: place for place, node in enumerate(drawn.nodes)}
    for edge in sorted(drawn.edges, key=lambda edge: -places[edge.target]):
        sums[edge.source] += sums[edge.target] * edge.factor.item()
    x.requires_grad_()
    y.requires_grad_()
    expected = torch.autograd.grad(program(x, y), (x, y))
    assert [sums["x"], sums["y"]] == pytest.approx([slope.item() for slope in expected], rel=1e-14)


def test_an_edge_of_a_tensor_bears_the_name_of_the_argument(drawn):
    x = Variable([1.0, 2.0])
    words = {(e.target, e.words) for e in graph((x * x).sum() * 2.0, gradients=True).edges}
    assert words == {("mul_1", "a"), ("mul_1", "b"), ("sum_1", "x"), ("mul_2", "2")}
    assert {e.words for e in drawn.edges} == {"3", "2", "-0.4161", "1"}
    assert ">-0.4161</text>" in drawn.svg(graphviz=False)
    assert 'label="-0.4161"' in drawn.dot()


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
    assert len({p.get("d") for p in svg.iter(f"{name}path") if p.get("marker-end")}) == 5


def _along(line, parts=40):
    """Points on the curve, with De Casteljau's construction."""
    (here, *_), points = line.points, []
    for step in line.steps():
        for k in range(parts + 1):
            mixed = [here, *step]
            while len(mixed) > 1:
                mixed = [
                    tuple(p + (q - p) * k / parts for p, q in zip(a, b, strict=True))
                    for a, b in pairwise(mixed)
                ]
            points += mixed
        here = step[-1]
    return points


@st.composite
def acyclic(draw):
    """Nodes of all sizes; skip connections, double use, nodes without edges."""
    count = draw(st.integers(1, 14))
    size = st.tuples(st.floats(10, 200), st.floats(10, 60))
    sizes = {f"n{i}": draw(size) for i in range(count)}
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    if draw(st.booleans()):  # a chain, so that the others go around many boxes
        pairs += pairwise(range(count))
    labels = st.sampled_from(["a", "weight", "tensors[12]"])
    edges = [(f"n{min(p)}", f"n{max(p)}", draw(labels)) for p in pairs if p[0] != p[1]]
    return sizes, edges, frozenset(draw(st.sets(st.sampled_from(sorted(sizes)))))


@given(acyclic())
@settings(max_examples=60, deadline=None)
def test_no_edge_passes_a_box_and_no_box_covers_another(drawn):
    sizes, edges, low = drawn
    layout = layered(sizes, edges, low)
    boxes = list(layout.boxes.items())
    for i, (_, a) in enumerate(boxes):
        assert min(a.x - a.width / 2, a.y - a.height / 2) >= 0
        assert a.x + a.width / 2 <= layout.width
        assert a.y + a.height / 2 <= layout.height
        for _, b in boxes[i + 1 :]:
            assert abs(a.x - b.x) >= (a.width + b.width) / 2 or abs(a.y - b.y) >= (a.height + b.height) / 2
    ends = set()
    for (source, target, _), line in zip(edges, layout.lines, strict=True):
        start, end = layout.boxes[source], layout.boxes[target]
        assert line.points[0][1] == start.y + start.height / 2  # at the lower side of the one,
        assert abs(line.points[0][0] - start.x) <= start.width / 2
        assert line.points[-1][1] == end.y - end.height / 2  # at the upper side of the other,
        assert abs(line.points[-1][0] - end.x) <= end.width / 2
        ends.add(line.points[-1])
        points = _along(line)
        assert all(p[1] <= q[1] + 1e-9 for p, q in pairwise(points))  # and always down
        for x, y in points:
            inside = [
                key for key, b in boxes
                if abs(x - b.x) < b.width / 2 - 1e-6 and abs(y - b.y) < b.height / 2 - 1e-6
            ]  # fmt: skip
            assert not inside
    assert len(ends) == len(edges)  # two edges between the same nodes arrive side by side


def test_double_use_is_two_edges_and_a_skip_connection_goes_around():
    y = Variable(3.0)
    first, second = graph(y * y, names={"y": y}).layout().lines
    assert first.points[0] != second.points[0]
    assert first.points[-1] != second.points[-1]
    x = Variable(2.0)
    graph_of_skip = graph(x + torch.exp(torch.sin(torch.tanh(x))), names={"x": x})
    layout = graph_of_skip.layout()
    skip = next(
        line
        for e, line in zip(graph_of_skip.edges, layout.lines, strict=True)
        if (e.source, e.target) == ("x", "add_1")
    )
    assert len(skip.points) == 4 + 2 * 3  # both ends, and three layers between


def test_nodes_show_values_and_gradients(drawn):
    lines = {node.key: node.lines for node in drawn.nodes}
    assert lines["x"] == ["x", "2", f"grad {3 + math.cos(2):.4g}"]
    assert lines["mul_1"][1] == "6"
    assert lines["sin_1"][1] == f"{math.sin(2):.4g}"
    assert lines["add_1"][1] == f"{6 + math.sin(2):.4g}"


def test_small_tensors_are_written_out_and_large_ones_measured():
    x, w = Variable([1.0, 2.0]), Variable(torch.ones(2, 8))
    lines = {n.key: n.lines for n in graph((x @ w).sum(), {"x": x, "w": w}, gradients=True).nodes}
    assert lines["x"] == ["x", "[1, 2]", "grad [8, 8]"]
    assert lines["w"] == ["w", "2 × 8", f"|grad| {math.sqrt(8 * 5):.4g}"]


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
    assert [name.split("=")[0] for name in nodes["linear_1"].input] == ["flatten_1", "3/weight", "3/bias"]
    assert nodes["0/weight"].op == "Parameter"
    assert [d.size for d in nodes["0/weight"].attr["_output_shapes"].list.shape[0].dim] == [2, 1, 3, 3]


def test_values_in_tensorboard_s_graph_tab(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from torch.utils.tensorboard import SummaryWriter

    drawn = graph(lambda x, y: torch.sigmoid(x * y) - y, x=[1.0, 2.0], y=3.0)
    with SummaryWriter(tmp_path) as writer:
        drawn.tensorboard(writer)
    events = EventAccumulator(str(tmp_path)).Reload()
    definition = GraphDef.FromString(events.Graph().SerializeToString())
    inputs = {node.name: list(node.input) for node in definition.node}
    assert inputs["mul_1=[3,6]"] == ["x=[1,2]", "y=3"]
    assert inputs["sub_1=[-2.047,-2.002]"] == ["sigmoid_1=[0.9526,0.9975]", "y=3"]
    assert [node.attr["value"].s for node in definition.node if node.op == "mul"] == [b"[3, 6]"]


def test_only_variables_have_a_graph():
    with pytest.raises(TypeError, match="not Tensor"):
        graph(torch.ones(2))


def test_values_on_the_way_are_those_that_were_computed():
    x, w = Variable(0.5), Variable(2.0)
    seen = {}

    def keep(name, value):
        seen[name] = value.item()
        return value

    h = keep("sigmoid_1", torch.sigmoid(keep("mul_1", w * x)))
    z = keep("pow_1", keep("sub_1", torch.maximum(h, keep("neg_1", -x)) - 2.0) ** 2) / torch.tensor(3.0)
    del h
    shown = {node.key: node.value for node in graph(z).nodes if not node.is_leaf}
    for name, value in seen.items():
        assert shown[name].item() == pytest.approx(value, rel=1e-6), name


def test_a_changed_input_is_not_taken_for_the_old_one():
    """Only what was computed is shown: nothing is computed again from numbers that are others by now."""
    x = Variable(2.0)
    z = torch.sin(x) + torch.exp(x + x)
    with torch.no_grad():
        x.data.mul_(2)
    shown = {node.key: node.value for node in graph(z).nodes}
    assert shown["add_1"] is None
    assert shown["sin_1"] is None
    assert shown["exp_1"].item() == pytest.approx(math.exp(4))  # which exp has kept for its derivative
    assert z.item() == pytest.approx(math.sin(2) + math.exp(4))


def test_of_a_program_every_value_is_shown():
    """Also those that no derivative needs, and that could not be told afterwards: numbers are added to x."""
    drawn = graph(lambda x, y: ((x + 1) + 2).exp() / (y.sum() - 3), x=0.5, y=torch.tensor([4.0, 5.0]))
    values = {node.key: node.value.tolist() for node in drawn.nodes}
    expected = {
        "x": 0.5, "add_1": 1.5, "add_2": 3.5, "exp_1": math.exp(3.5), "y": [4, 5], "sum_1": 9, "sub_1": 6,
        "div_1": math.exp(3.5) / 6,
    }  # fmt: skip
    assert list(values) == list(expected)
    assert all(values[key] == pytest.approx(value, rel=1e-6) for key, value in expected.items())
    assert type(variable.BASE) is variable.BaseLevel  # nobody pays for it afterwards


def test_of_a_recorded_model_values_names_and_gradients_are_shown():
    model = nn.Linear(2, 1)
    with autograd.record(model):
        drawn = graph(lambda x: F.mse_loss(model(x), torch.ones(1, 1)), x=torch.ones(1, 2), gradients=True)
    nodes = {node.key: node for node in drawn.nodes}
    assert {"x", "weight", "bias"} <= set(nodes)
    assert all(node.value is not None and node.gradient is not None for node in drawn.nodes)
    x = torch.ones(1, 2, requires_grad=True)
    loss = F.mse_loss(model(x), torch.ones(1, 1))
    loss.backward()
    torch.testing.assert_close(nodes["x"].gradient, x.grad)
    torch.testing.assert_close(nodes["weight"].gradient, model.weight.grad)
    assert drawn.nodes[-1].value.item() == pytest.approx(loss.item())


def test_inputs_without_a_program_are_refused():
    x = Variable(2.0)
    with pytest.raises(TypeError, match="x would be inputs of a program"):
        graph(x * 2, x=3.0)
    with pytest.raises(TypeError, match="not float"):
        graph(lambda x: 3.0, x=1.0)
