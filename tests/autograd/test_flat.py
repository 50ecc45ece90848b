"""Where a derivative is zero or unknown: torch gives zeros, or an error at backward. So does ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Wishart
from torch.nn.utils.parametrizations import orthogonal
from torch.utils import _pytree as pytree

from torchopt_course import autograd
from torchopt_course.autograd import Variable

SHAPE = (3, 4)
P = torch.full(SHAPE, 0.4, dtype=torch.float64)
COMPARISONS = ("eq_", "ne_", "lt_", "le_", "gt_", "ge_", "greater_", "less_equal_", "not_equal_")
PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    "bernoulli": lambda x, y: torch.bernoulli(x),
    "x.bernoulli": lambda x, y: x.bernoulli(),
    "bernoulli p": lambda x, y: torch.bernoulli(x, 0.3),
    "x.bernoulli p": lambda x, y: x.bernoulli(p=0.3),
    "bernoulli_": lambda x, y: (x * 1).bernoulli_(0.3),
    "bernoulli_ p": lambda x, y: (x * 1).bernoulli_(p=y),
    "bernoulli_ of a constant": lambda x, y: P.clone().bernoulli_(y),
    "normal": lambda x, y: torch.normal(x, y),
    "normal mean": lambda x, y: torch.normal(mean=x, std=P),
    "normal std": lambda x, y: torch.normal(0.5, y),
    "poisson": lambda x, y: torch.poisson(input=x),
    "binomial": lambda x, y: torch.binomial(10 * P.round(), x),
    "binomial count": lambda x, y: torch.binomial(count=x * 10, prob=y),
    "geometric_": lambda x, y: (x * 1).geometric_(0.3) * y,
    **{f"x.{name}(y)": lambda x, y, name=name: getattr(x * 1, name)(y) for name in COMPARISONS},
    **{f"x[0].{name}(y)": lambda x, y, name=name: getattr((x * 1)[0], name)(y[0]) for name in ("lt_", "ge_")},
    **{f"P.{name}(y)": lambda x, y, name=name: getattr(P.clone(), name)(y) for name in COMPARISONS},
    "gt_ number": lambda x, y: (x * 1).gt_(0.5),
    "gt": lambda x, y: torch.gt(x, y).to(x),
    "fill": lambda x, y: torch.fill(x, y[0, 0]),
    "fill number": lambda x, y: torch.fill(x, 2.0),
    "nextafter": lambda x, y: torch.nextafter(x, y),
    "zeta": lambda x, y: torch.special.zeta(2.5, y),
    "histc": lambda x, y: torch.histc(x, 5),
    "histogram": lambda x, y: torch.histogram(x, 5, weight=y),
    "unique": lambda x, y: torch.unique(x, return_counts=True),
    "unique_consecutive": lambda x, y: x.unique_consecutive(dim=0),
    "heaviside": lambda x, y: torch.heaviside(x - 0.5, y),
    "heaviside_": lambda x, y: (x - 0.5).heaviside_(y),
    "bincount": lambda x, y: torch.bincount(torch.arange(4), weights=x[0]),
    "geqrf": lambda x, y: torch.geqrf(x),
    "full_like": lambda x, y: torch.full_like(x, 2.0),
    "rand_like": lambda x, y: torch.rand_like(x),
}


def outcome(program: Callable[[Any, Any], Any], kind: str) -> list[Any]:
    """Of each result its value, whether it requires a gradient, and the gradients or that there are none."""
    torch.manual_seed(0)
    make = Variable if kind == "variable" else lambda x: x.requires_grad_()
    xs = [make(torch.rand(SHAPE, dtype=torch.float64) * 0.8 + 0.1) for _ in range(2)]
    with autograd.record() if kind == "record" else torch.enable_grad():
        results = [y for y in pytree.tree_leaves(program(*xs)) if isinstance(y, Tensor)]
    found: list[Any] = []
    for y in results:
        found += [y.detach(), y.requires_grad]
        if y.requires_grad:
            try:
                g = torch.full_like(y.detach(), 3.0)
                found += torch.autograd.grad(y, xs, g, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                found.append("not implemented" in str(error))
    return found


@pytest.mark.parametrize("kind", ["variable", "record"])
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_it_is_zero_or_an_error_as_in_torch(name: str, kind: str):
    truth, mine = outcome(PROGRAMS[name], "torch"), outcome(PROGRAMS[name], kind)
    for a, b in zip(mine, truth, strict=True):
        assert type(a) is type(b)
        torch.testing.assert_close(a, b) if isinstance(b, Tensor) else None
        assert isinstance(b, Tensor) or a == b


@pytest.mark.parametrize("name", ["bernoulli", "normal", "poisson", "x.gt_(y)", "P.gt_(y)"])
def test_tangents_are_zero(name: str):
    x, seed = torch.rand(SHAPE, dtype=torch.float64), torch.manual_seed
    value, tangent = autograd.jvp(lambda x, y: [seed(0), PROGRAMS[name](x, y)][1], (x, x), (P, P))
    seed(0)
    torch.testing.assert_close(value, PROGRAMS[name](x, x))
    assert not tangent.any()


def test_a_boolean_that_is_an_index_may_change():
    """torch reads a single one at once, as Wishart relies on; a mask of several it keeps, and refuses."""
    gradients = []
    for make in (lambda x: x.requires_grad_(), Variable):
        x = make(torch.tensor([1.0, 2.0]))
        h, one = x * 1, torch.tensor(True)
        part = h[one]
        h[one] = h.detach() * 5
        one.logical_not_()
        (part**2 + h**3).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_samples_of_matrices():
    gradients = []
    for make in (lambda x: x.requires_grad_(), Variable):
        torch.manual_seed(0)
        x = make(torch.rand(3, 3, dtype=torch.float64))
        covariance = x @ x.T + torch.eye(3)
        sample = Wishart(torch.tensor(5.0).double(), covariance).rsample()
        (sample**2 * MultivariateNormal(x[0], covariance).rsample()).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("orthogonal_map", ["householder", "matrix_exp", "cayley"])
def test_an_orthogonal_layer_is_trained(shape: tuple[int, int], orthogonal_map: str):
    weights = []
    for mine in (False, True):
        torch.manual_seed(0)
        layer = orthogonal(nn.Linear(*shape).double(), orthogonal_map=orthogonal_map)
        optimizer, x = torch.optim.SGD(layer.parameters(), 0.05), torch.randn(6, shape[0]).double()
        for _ in range(3):
            optimizer.zero_grad()
            with autograd.record(layer) if mine else torch.enable_grad():
                loss = (layer(x) ** 3).sum()
            loss.backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(weights[1], weights[0])
