"""Small programs as users write them, each run by torch, with variables, and inside of ``record``."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .agreement import Make, assert_as_in_torch, error_of

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
    switched_off_and_on, switched_off_it_takes_a_past, detached_in_place,
    gradients_to_start_with, products_of_what_is_no_matrix, copies_of_numbers, results_in_a_file,
    products_of_a_sparse_matrix, numbers_of_two_dtypes, what_has_no_derivative, detached_by_the_class,
    the_same_bits, a_parameter_made_of_a_result, one_is_not_true,
]  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:Sparse",
    "ignore:.*Sparse CSR",
    "ignore:.*batchmean",
)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_it_is_as_in_torch(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)
