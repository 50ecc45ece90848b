"""``torch.autograd.grad`` and ``backward(inputs=...)`` go the ways to their inputs, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from .agreement import Make, assert_as_in_torch
from .test_users_programs import error_of


def _watched(make: Make) -> tuple[Any, Any, Any, list[Any]]:
    """x -> h -> k, with a branch x -> b; what is behind h and in the branch tells when it is visited."""
    seen: list[Any] = []
    x = make(1.0, 2.0)
    h = x.exp()
    branch = (x * x).exp()
    for i, value in enumerate((x, h, branch)):
        value.register_hook(lambda g, i=i: seen.append(i))
    return x, h, (h * branch).sum(), seen


def hooks_beside_the_way_are_not_called(make: Make) -> list[Any]:
    x, h, k, seen = _watched(make)
    (g,) = torch.autograd.grad(k, h, retain_graph=True)
    first = list(seen)
    k.backward(inputs=[h], retain_graph=True)
    return [g, first, list(seen), *torch.autograd.grad(k, x), seen, x.grad]


def what_is_beside_the_way_is_not_freed(make: Make) -> list[Any]:
    x, h, k, _ = _watched(make)
    gradients = torch.autograd.grad(k, h)
    h.sum().backward()
    return [*gradients, x.grad, error_of(h.sum().backward), error_of(k.backward)]


def an_input_that_another_is_made_of(make: Make) -> list[Any]:
    x, h, k, seen = _watched(make)
    gradients = torch.autograd.grad(k, (h, x, k), retain_graph=True)
    return [*gradients, seen, *torch.autograd.grad(h, h, h.detach())]


def one_of_many_leaves(make: Make) -> list[Any]:
    x, y, seen = make(1.0, 2.0), make(3.0, 4.0), []
    h = y * y
    for value in (x, y, h):
        value.register_hook(lambda g: seen.append(g.tolist()))
    ((x * h).sum() * y[0]).backward(inputs=x)
    return [x.grad, y.grad, seen]


def a_result_keeps_its_gradient_from_then_on(make: Make) -> list[Any]:
    x, h, k, _ = _watched(make)
    k.backward(inputs=[h], retain_graph=True)
    first = h.grad.clone()
    h.sum().backward(inputs=[h, x], retain_graph=True)
    second = h.grad.clone()
    k.backward()
    return [first, second, h.grad, x.grad, h.retains_grad]


def one_that_kept_it_already(make: Make) -> list[Any]:
    x, h, k, _ = _watched(make)
    h.retain_grad()
    k.backward(inputs=h)
    return [h.grad, x.grad]


def the_same_leaf_twice(make: Make) -> list[Any]:
    x, seen = make(1.0, 2.0), []
    x.register_hook(lambda g: (seen.append(0), g * 2)[1])
    return [*torch.autograd.grad((x * x).sum(), (x, x)), seen]


def complex_gradients(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 2
    given = torch.ones(2, dtype=torch.complex128)
    return [error_of(lambda: h.backward(given)), error_of(lambda: torch.autograd.grad(h, h, given))]


def recorded(make: Make) -> list[Any]:
    x, h, k, seen = _watched(make)
    (g,) = torch.autograd.grad(k, h, create_graph=True)
    (g * h).sum().backward()
    return [g, x.grad, seen]


@pytest.mark.parametrize(
    "program",
    [
        hooks_beside_the_way_are_not_called,
        what_is_beside_the_way_is_not_freed,
        an_input_that_another_is_made_of,
        one_of_many_leaves,
        recorded,
        a_result_keeps_its_gradient_from_then_on,
        one_that_kept_it_already,
        the_same_leaf_twice,
        complex_gradients,
    ],
)
def test_as_in_torch(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)
