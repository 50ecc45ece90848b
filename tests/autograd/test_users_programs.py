"""Small programs as users write them, each run by torch, with variables, and inside of ``record``."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .agreement import Make, assert_as_in_torch


def error_of(call: Callable[[], Any]) -> str:
    """The type of the error that a call raises."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "none"


# -- hooks ---------------------------------------------------------------------------------------------------


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


# -- memory --------------------------------------------------------------------------------------------------


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


# -- modules -------------------------------------------------------------------------------------------------


def the_same_bits(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 2
    views = [h.view(dtype) for dtype in (torch.int64, torch.int32, torch.float32)]
    return [*views, *[x.requires_grad for x in views]]


def a_parameter_made_of_a_result(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    parameter = nn.Parameter((x * 2).detach())  # torch refuses one of another class than Tensor's
    (parameter**2).sum().backward()
    return [type(parameter) is nn.Parameter, parameter, parameter.grad, x.grad]


def one_is_not_true(make: Make) -> list[Any]:
    h = make(1.0, 2.0).expand(2, 2)
    return [F.group_norm(h, 1), error_of(lambda: F.group_norm(h, True)), error_of(lambda: h.tile(1.0))]


# -- on and off ----------------------------------------------------------------------------------------------


def switched_off_and_on(make: Make) -> list[Any]:
    x, y, results = make(1.0, 2.0), make(3.0, 4.0), []
    for on in (True, False, True):
        x.requires_grad_(on)
        h = x * 2
        (h * y).sum().backward()
        results += [h.requires_grad, x.grad, y.grad.clone()]
        x.grad = y.grad = None
        if not on:
            results += [error_of(partial(x.register_hook, print)), error_of(x.retain_grad), x * y.detach()]
            results += [F.gelu(x).requires_grad, error_of(x.sum().backward)]
            x.add_(1)  # values, of what is a constant now
            x[0] = 5.0
    return results


def switched_off_it_takes_a_past(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0).requires_grad_(False), make(3.0, 4.0)
    x.mul_(y)
    (x * x).sum().backward()
    return [x, x.requires_grad, x.is_leaf, y.grad]


def detached_in_place(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2
    h.detach_()
    k = h * 3
    h.requires_grad_()
    (h * h * k).sum().backward()
    return [k.requires_grad, h.grad, x.grad]


def functions_of_what_is_switched_off(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0).requires_grad_(False), make(3.0, 4.0)
    (Kept.apply(x) * Kept.apply(y)).sum().backward()
    return [Kept.apply(x).requires_grad, x.grad, y.grad]


# -- arguments -----------------------------------------------------------------------------------------------


def gradients_to_start_with(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    (x * x).backward(torch.tensor([1, 2]))
    (x * x).backward(torch.ones(2))
    return [x.grad, error_of(lambda: (x * x).sum().backward(2.0))]


def products_of_what_is_no_matrix(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    calls = [error_of(lambda f=f: f(x, x)) for f in (torch.mm, torch.bmm, torch.mv, torch.dot, torch.matmul)]
    return [*calls, torch.mm(x[None], mat2=x[:, None]), torch.mv(torch.outer(x, x), vec=x)]


def products_of_a_sparse_matrix(make: Make) -> list[Any]:
    """The layer of a graph network."""
    x = make(1.0, 2.0, 3.0)
    edges = torch.sparse_coo_tensor(
        torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]]), torch.arange(1.0, 5.0).double()
    )
    h, results = torch.outer(x, x[:2]), []
    for matrix in (edges, edges.to_sparse_csr()):
        products = [torch.sparse.mm(matrix, h), torch.spmm(matrix, h), matrix @ h]
        results += [*products, torch.sparse.addmm(h, matrix, h, beta=0.5, alpha=2.0)]
    sum((k + 1) * (y * y).sum() for k, y in enumerate(results)).backward()
    return [*results, x.grad]


def copies_of_numbers(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 1
    return [h.copy_(3.0), error_of(lambda: h.fill_(torch.ones(1))), h.fill_(torch.tensor(4))]


def numbers_of_two_dtypes(make: Make) -> list[Any]:
    """Results are of the dtype that torch gives them; what must agree is refused."""
    results = []
    for dtype in (torch.float32, torch.int64, torch.bool):
        h = make(1.0, 2.0).expand(2, 2) * torch.tensor([1.0, 3.0], dtype=torch.float64)
        other = torch.ones(2, 2, dtype=dtype)
        results += [
            h.slice_scatter(other),
            h.slice_scatter(other[:, :1], 1, 0, 1),
            h.diagonal_scatter(other[0]),
        ]
        results += [h.select_scatter(other[0], 0, 0), F.cosine_similarity(h, other), F.mse_loss(h, other)]
        results += [F.huber_loss(h, other), F.smooth_l1_loss(h, other)]
        wide = torch.ones(2, 2, dtype=torch.float64)
        results += [F.huber_loss(h.float(), wide), F.soft_margin_loss(h.float(), wide)]
        h[h > 1] = other[0, 0]
        results += [h, error_of(partial(h.__setitem__, torch.tensor([0]), other[:1]))]
    return results


def what_has_no_derivative(make: Make) -> list[Any]:
    """There are numbers, and an error when somebody asks for the derivative."""
    x, places = make(1.0, 2.0), torch.tensor([0, 1])
    values, where = torch.unique(x, return_inverse=True)
    results = [values, where, x.unique(), torch.bincount(places, x), torch.heaviside(x - 1, x)]
    for result in (values, *results[2:]):
        results += [result.requires_grad, error_of(result.sum().backward) != "none"]
    return [*results, x.grad]


def detached_by_the_class(make: Make) -> list[Any]:
    h = make(1.0, 2.0) * 2
    return [torch.detach_(h) is h, h.requires_grad, h]


def results_in_a_file(make: Make) -> list[Any]:
    x, file = make(1.0, 2.0), io.BytesIO()
    torch.save({"epoch": 1, "loss": (x * x).sum()}, file)
    file.seek(0)
    loss = torch.load(file)["loss"]
    return [loss, type(loss) is Tensor, loss.requires_grad, pickle.loads(pickle.dumps(x * 2))]


PROGRAMS = [
    switched_off_and_on, switched_off_it_takes_a_past, detached_in_place, functions_of_what_is_switched_off,
    gradients_to_start_with, products_of_what_is_no_matrix, copies_of_numbers, results_in_a_file,
    products_of_a_sparse_matrix, numbers_of_two_dtypes, what_has_no_derivative, detached_by_the_class,
    a_hook_that_removes_itself, a_hook_after_accumulation_that_removes_itself, gradients_are_added_in_place,
    gradients_that_are_differentiated, frozen_after_the_forward_pass,
    what_a_function_returns_stays_its_own, data_of_another_shape,
    other_memory, the_same_bits, memory_that_is_not_to_be_had, memory_that_is_shared, another_shape_in_place,
    a_parameter_made_of_a_result, one_is_not_true,
]  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:Using backward",
    "ignore:Sparse",
    "ignore:.*Sparse CSR",
    "ignore:.*storages of different",
    "ignore:.*batchmean",
)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_it_is_as_in_torch(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)
