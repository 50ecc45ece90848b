"""Forward and reverse trace: the tables of Baydin et al. (2018), and torch.autograd for other programs."""

from __future__ import annotations

import math
import unicodedata

import pytest
import torch

from torchopt_course.autograd import primitive, trace
from torchopt_course.autograd.primitives import PRIMITIVES


def baydin(x1, x2):
    return torch.log(x1) + x1 * x2 - torch.sin(x2)


@pytest.fixture(scope="module")
def paper():
    return trace(baydin, x1=2, x2=5)


def test_table_2_of_the_paper_forward_mode(paper):
    """y = f(x1, x2) at (2, 5), with its derivative by x1. The paper has v-1 and v0 for x1 and x2."""
    lines = [(line.text, line.value.item(), line.tangents["x1"].item()) for line in paper.forward]
    assert [(text, round(value, 3), round(tangent, 3)) for text, value, tangent in lines] == [
        ("x1 = 2", 2, 1), ("x2 = 5", 5, 0), ("v1 = log(x1)", 0.693, 0.5), ("v2 = x1 * x2", 10, 5),
        ("v3 = v1 + v2", 10.693, 5.5), ("v4 = sin(x2)", -0.959, 0), ("v5 = v3 - v4", 11.652, 5.5),
    ]  # fmt: skip
    assert [line.tangent for line in paper.forward[2:]] == [
        "v̇1 = ẋ1 / x1", "v̇2 = ẋ1 * x2 + ẋ2 * x1", "v̇3 = v̇1 + v̇2", "v̇4 = ẋ2 * cos(x2)", "v̇5 = v̇3 - v̇4",
    ]  # fmt: skip


def test_table_3_of_the_paper_reverse_mode(paper):
    assert [(line.text, round(line.value.item(), 3)) for line in paper.reverse] == [
        ("v̄5 = 1", 1), ("v̄3 = v̄5", 1), ("v̄4 = -v̄5", -1), ("x̄2 = v̄4 * cos(x2)", -0.284), ("v̄1 = v̄3", 1),
        ("v̄2 = v̄3", 1), ("x̄1 = v̄2 * x2", 5), ("x̄2 = x̄2 + v̄2 * x1", 1.716), ("x̄1 = x̄1 + v̄1 / x1", 5.5),
    ]  # fmt: skip
    assert paper.value.item() == pytest.approx(math.log(2) + 10 - math.sin(5))
    assert {name: x.item() for name, x in paper.gradient.items()} == pytest.approx(
        {"x1": 5.5, "x2": 2 - math.cos(5)}
    )


def test_the_lecture_s_program_as_text_and_markdown():
    def program(x, y):
        a = x * y
        b = torch.sin(x)
        return a + b

    lecture = trace(program, x=2, y=3)
    assert str(lecture).splitlines()[2:7] == [
        "statement        value  tangent                  d/dx  d/dy",
        "x = 2                2  ẋ = 1                       1     0",
        "y = 3                3  ẏ = 1                       0     1",
        "v1 = x * y           6  v̇1 = ẋ * y + ẏ * x          3     2",
        "v2 = sin(x)   0.909297  v̇2 = ẋ * cos(x)     -0.416147     0",
    ]
    markdown = lecture.markdown()
    assert "| v1 = x * y | x̄ = x̄ + v̄1 * y | 2.58385 |" in markdown
    assert markdown == lecture._repr_markdown_()
    assert {line.count("|") for line in markdown.splitlines() if line.startswith("|")} == {4, 6}


def everything(x, y):
    a = torch.tanh(x) / (y - 3) ** 2 - torch.sqrt(x) * torch.relu(y)
    for _ in range(3):  # a loop is unrolled, a branch is taken
        a = a * torch.exp(-y) if x > 0 else a
    stacked = torch.stack([a, y, x * x]).softmax(0)
    return (torch.clamp(stacked, 0.1, 0.6) @ stacked) ** x + 2**a - -torch.maximum(x, y)


def test_any_program_gives_torch_s_derivatives():
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.3)]
    expected = torch.autograd.grad(everything(*leaves), leaves)
    found = trace(everything, 0.7, y=1.3)
    for (name, reverse), truth in zip(found.gradient.items(), expected, strict=True):
        assert reverse.item() == pytest.approx(truth.item(), rel=1e-12)
        assert found.forward[-1].tangents[name].item() == pytest.approx(truth.item(), rel=1e-12)


def test_formulas_are_what_was_computed():
    """Each adjoint's text, evaluated as Python on the traced values, gives the adjoint."""

    def program(x, y):
        return torch.exp(x / (y - x)) ** 3 - (x - (y - 2)) * -(x + y) / (2 * y) / torch.cosh(x - y)

    found = trace(program, x=0.5, y=2.5)
    names = {line.name: line.value.item() for line in found.forward}
    names |= {f: getattr(math, f) for f in ("exp", "cosh", "sinh", "cos", "sin")}
    bars: dict[str, float] = {}
    for line in found.reverse:
        text = unicodedata.normalize("NFD", line.text.split(" = ")[1]).replace("\u0304", "_bar")
        bars = {**bars, "": 0.0}
        spelled = {f"{name[0]}_bar{name[1:]}": value for name, value in bars.items() if name}
        assert eval(text, {**names, **spelled}) == pytest.approx(line.value.item(), rel=1e-5)
        bars[line.of] = line.value.item()
    for line in found.forward:
        assert eval(line.text.split(" = ")[1], dict(names)) == pytest.approx(line.value.item(), rel=1e-5)


def test_names_never_clash_and_long_ones_are_readable():
    found = trace(lambda v1, width: v1 * width, 2, 3.0)
    assert found.forward[-1].text == "w1 = v1 * width"
    assert found.reverse[1].text == "v̄1 = w̄1 * width"
    assert found.reverse[2].text == "width_bar = w̄1 * v1"


def test_a_primitive_of_one_s_own_writes_its_own_rule():
    @primitive(x=lambda g, x: 3 * g * x**2)
    def cube(x):
        return x * x * x

    try:
        found = trace(cube, x=2)
    finally:
        del PRIMITIVES["cube"]
    assert [line.text for line in found.reverse] == ["v̄1 = 1", "x̄ = 3 * v̄1 * x ** 2"]
    assert found.gradient["x"].item() == 12


def test_values_changed_in_place_are_lines_of_their_own():
    def program(x, y):
        h = x * y
        h += torch.exp(y)
        h.mul_(x)
        return h

    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 3.0)]
    expected = [g.item() for g in torch.autograd.grad(program(*leaves), leaves)]
    with torch.no_grad():  # makes no difference
        found = trace(program, x=2, y=3)
    assert [line.text for line in found.forward if line.name[0] == "v" and "clone" not in line.text] == [
        "v1 = x * y", "v2 = exp(y)", "v3 = v1 + v2", "v4 = v3 * x",
    ]  # fmt: skip
    values = [6, math.exp(3), 6 + math.exp(3), 2 * (6 + math.exp(3))]
    assert [line.value.item() for line in found.forward[2:]] == pytest.approx(values)
    assert [x.item() for x in found.gradient.values()] == pytest.approx(expected)


def test_unused_inputs_and_torch_s_own_functions():
    assert trace(lambda x, y: x * x, x=1, y=2).gradient["y"].item() == 0
    assert trace(torch.atan2, 1.0, 2.0).forward[-1].text == "v1 = atan2(x1, x2)"


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"the input 'x' must be a number, not a tensor of shape \(2,\)"):
        trace(torch.sin, x=torch.ones(2))
    with pytest.raises(TypeError, match=r"must return a single number, not shape \(2,\)"):
        trace(lambda x: torch.stack([x, x]), x=1)
    with pytest.raises(TypeError, match="missing a required argument"):
        trace(baydin, x1=1)
    with pytest.raises(ValueError, match="does not depend on the inputs"):
        trace(lambda x: torch.ones(()), x=1)
