"""Users' programs about hooks and memory: who owns a gradient, and what becomes of data that is replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from .agreement import Make, assert_as_in_torch, error_of


def a_hook_that_removes_itself(make: Make) -> list[Any]:
    x, seen, handles = make(1.0, 2.0), [], []
    h = x * 2
    for value in (h, x):
        first = value.register_hook(lambda g: (handles.pop().remove(), seen.append(g.clone()), 3 * g)[2])
        handles.append(first)
        value.register_hook(lambda g: seen.append(g.clone()))
        h.sum().backward(retain_graph=True)
        h.sum().backward(retain_graph=True)
    return [*seen, x.grad]


def a_hook_after_accumulation_that_removes_itself(make: Make) -> list[Any]:
    x, seen = make(1.0, 2.0), []

    def once(x: Any) -> None:
        seen.append(x.grad.clone())
        handle.remove()

    handle = x.register_post_accumulate_grad_hook(once)
    x.register_post_accumulate_grad_hook(lambda x: seen.append(x.grad.clone()))
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    return seen


def gradients_are_added_in_place(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0), make(3.0, 4.0)
    (x * x).sum().backward()
    kept = y.grad = x.grad  # as workers share their gradients
    (x * x * x).sum().backward()
    return [kept, x.grad is kept, y.grad]


def gradients_that_are_differentiated(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    (x**3).sum().backward(create_graph=True)
    kept = x.grad
    (x**3).sum().backward(create_graph=True)
    last = x.grad
    (kept * last).sum().backward()
    return [kept, last is x.grad, x.grad, x.grad.requires_grad]


def frozen_after_the_forward_pass(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0), make(3.0, 4.0)
    loss = (x * y).sum()
    x.requires_grad_(False)
    loss.backward()
    return [x.grad, y.grad, torch.from_numpy(x.numpy()), torch.from_dlpack(x)]


class Kept(torch.autograd.Function):
    """Its gradient belongs to somebody else."""

    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64)

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return Kept.gradient


def what_a_function_returns_stays_its_own(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    Kept.apply(x).sum().backward()
    x.grad.zero_()
    Kept.apply(x).sum().backward()
    return [x.grad, Kept.gradient]


def functions_of_what_is_switched_off(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0).requires_grad_(False), make(3.0, 4.0)
    (Kept.apply(x) * Kept.apply(y)).sum().backward()
    return [Kept.apply(x).requires_grad, x.grad, y.grad]


def data_of_another_shape(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    x.data = torch.ones(3, dtype=torch.float64)
    (x * x).sum().backward()
    return [x, x.grad]


def other_memory(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 2
    with torch.no_grad():
        h.set_(torch.ones(3, dtype=torch.float64))
    return [h, h.requires_grad]


def memory_that_is_not_to_be_had(make: Make) -> list[Any]:
    h, plain = make(1.0, 2.0) * 2, torch.ones(3, dtype=torch.float64)
    errors = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            errors += [error_of(call) for call in (
                lambda: h.resize_(3), lambda: h.resize_as_(plain), lambda: h.apply_(abs),
                lambda: h.map_(h.detach(), max), lambda: h.map2_(h.detach(), h.detach(), max),
                lambda: np.asarray(h), h.numpy,
            )]  # fmt: skip
    return [*errors, plain.resize_as_(h.detach()), torch.from_numpy(h.numpy(force=True))]


def memory_that_is_shared(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 2
    return [h.share_memory_() is h, h.is_shared(), h]


def another_shape_in_place(make: Make) -> list[Any]:
    x = make(1.0, 2.0, 3.0, 4.0)
    h, kept = x * 2, x * 3
    h.as_strided_((2, 2), (1, 2))
    with torch.no_grad():
        kept.as_strided_((2,), (2,), 1)
    (h[0] * h[1] * h[1]).sum().backward()
    return [h, kept, x.grad]


PROGRAMS = [
    a_hook_that_removes_itself, a_hook_after_accumulation_that_removes_itself, gradients_are_added_in_place,
    gradients_that_are_differentiated, frozen_after_the_forward_pass, what_a_function_returns_stays_its_own,
    data_of_another_shape, other_memory, memory_that_is_not_to_be_had, memory_that_is_shared,
    another_shape_in_place, functions_of_what_is_switched_off,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using backward", "ignore:.*storages of different")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_it_is_as_in_torch(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)
