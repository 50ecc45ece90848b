"""Code in C++ does not ask whom it computes with: torch records that, and it counts, or it is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd as ag

from .agreement import Make, assert_as_in_torch

PLACES = torch.tensor([[0, 1], [1, 0]])


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return (x * x).sum()


traced = torch.jit.trace(lambda x: x.sin().sum(), torch.ones(2, dtype=torch.float64))

IN_CPP: dict[str, Callable[[Any], Any]] = {
    "torch.jit.script": scripted,
    "torch.jit.trace": traced,
    "torch.func.vmap": lambda x: torch.func.vmap(torch.sin)(x).sum(),
    "torch.func.grad": lambda x: torch.func.grad(scripted)(x).sum(),
    "as_tensor": lambda x: torch.as_tensor(x, dtype=torch.float32).double().sum(),
    "asarray": lambda x: torch.asarray(x, copy=True).prod(),
    "as_subclass": lambda x: x.as_subclass(Tensor).prod(),
    "Tensor": lambda x: torch.DoubleTensor(x).prod(),
    "sparse": lambda x: torch.sparse_coo_tensor(PLACES, x, (2, 2)).to_dense().prod(1).sum() + x.sum(),
    "sparse.sum": lambda x: torch.sparse.sum(torch.sparse_coo_tensor(PLACES, x * x, (2, 2))),
    "new": lambda x: x.new(x).prod(),
    "new of a constant": lambda x: x.detach().new(x).prod(),
}


@pytest.mark.parametrize("name", IN_CPP)
def test_what_torch_recorded_of_variables_counts(name: str):
    function = IN_CPP[name]

    def program(make: Make) -> list[Any]:
        x, y, z = make(1.0, 2.0), make(3.0, 4.0), make(5.0, 6.0)
        function(x).backward()  # nothing behind it
        function(y * y).backward()
        h = z * z
        gradients = torch.autograd.grad(function(h) * 2, (h, z), allow_unused=True)
        return [x.grad, y.grad, *gradients]

    assert_as_in_torch(program)


@pytest.mark.parametrize("name", [name for name in IN_CPP if not name.startswith("new")])
def test_inside_of_a_transform_it_is_an_error(name: str):
    function, x = IN_CPP[name], torch.tensor([1.0, 2.0], dtype=torch.float64)
    for transform in (
        ag.grad(function),
        ag.grad(lambda x: function(x) + x.sum()),  # a part of it
        ag.hessian(function),
        ag.jacfwd(function),
        ag.jacfwd(lambda x: function(x) * x),
        lambda x: ag.jvp(function, (x,), (x,)),
        lambda x: ag.vjp(function, x),
    ):
        with pytest.raises(NotImplementedError, match=r"torch's C\+\+ code|of functorch|transform of torch"):
            transform(x)


def test_of_variables_from_outside_it_counts_there_too():
    x = ag.Variable([1.0, 2.0])
    slope = ag.grad(lambda y: (y * scripted(x)).sum())(torch.ones(2))
    slope.sum().backward()
    assert x.grad.tolist() == [4, 8]


def test_a_copy_of_numbers_may_require_a_gradient_of_its_own():
    def program(make: Make) -> list[Any]:
        h = make(1.0, 2.0) * 2
        copy = torch.tensor(h, requires_grad=True)
        (copy * h).sum().backward()
        nested = torch.tensor([[h[0], h[1]]], requires_grad=True)
        return [copy.grad, copy.is_leaf, nested, nested.requires_grad]

    assert_as_in_torch(program)


def test_an_edge_of_torch_s_graph_in_place_of_its_tensor_is_an_error():
    edge = torch.autograd.graph.get_gradient_edge(scripted(ag.Variable([1.0, 2.0])))
    with pytest.raises(NotImplementedError, match="GradientEdge"):
        torch.autograd.backward(edge, torch.tensor(1.0))


@pytest.mark.parametrize("name", ["torch.jit.script", "torch.func.vmap", "as_tensor"])
@pytest.mark.parametrize("of_view", [False, True])
def test_a_variable_written_to_since_is_an_error(name: str, of_view: bool):
    function, h = IN_CPP[name], ag.Variable(torch.ones(2, dtype=torch.float64)) * 2
    view = h[:] if of_view else h
    before = function(view)
    h.mul_(3)
    after = function(view)
    with pytest.raises(RuntimeError, match="written to in place"):
        before.backward()
    with pytest.raises(RuntimeError, match="written to in place"):
        (before + h.sum()).backward()
    after.backward()
