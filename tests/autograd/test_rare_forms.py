"""Forms of calls that torch's data base of examples does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from torchopt_course.autograd import Variable

STACK = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
MATRIX = torch.rand(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1

FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "inner of stacks": lambda b, x: torch.inner(b, b * 2),
    "inner of a matrix and a stack": lambda b, x: x.inner(b),
    "inner of a stack and a vector": lambda b, x: torch.inner(b, x[0]),
    "cosine_similarity below eps": lambda b, x: F.cosine_similarity(x, b[0, 0], 0, 2.0),
    "max_pool1d_with_indices": lambda b, x: torch.max_pool1d_with_indices(x, 2),
    "max_pool2d_with_indices": lambda b, x: F.max_pool2d_with_indices(b, 2),
    "max_pool2d with indices": lambda b, x: F.max_pool2d(b, 2, return_indices=True),
    "adaptive_max_pool2d_with_indices": lambda b, x: F.adaptive_max_pool2d_with_indices(b, 2),
    "triangular_solve of a stack": lambda b, x: torch.triangular_solve(b, x),
    "a bias with dimensions": lambda b, x: F.linear(x, b[0, 0], b[1, 1]),
    "resize_as": lambda b, x: x.resize_as(b[0, 0].reshape(2, 8)),
    "resize": lambda b, x: x.resize(2, 8),
    **{f"{f.__name__} {how}": lambda b, x, f=f, how=how: f(x, b[0, 0], *how)
       for f in (F.mse_loss, F.l1_loss, F.kl_div, F.smooth_l1_loss)
       for how in ((0,), (1, 0), (None, 0), (None, 1), (0, 1), (1,))},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:size_average", "ignore:non-inplace resize", "ignore:.*batchmean")
@pytest.mark.parametrize("name", list(FORMS))
def test_a_rare_form_is_torchs(name: str):
    found: list[list[Any]] = []
    for make in (lambda t: t.clone().requires_grad_(), Variable):
        b, x = make(STACK), make(MATRIX)
        results = pytree.tree_leaves(FORMS[name](b, x))
        sum((y**2).sum() for y in results if y.is_floating_point()).backward()
        found.append([*(y.detach() for y in results), b.grad, x.grad])
    torch.testing.assert_close(found[1], found[0])


def test_equations_of_lower_rank_by_choice_are_refused():
    x = Variable(MATRIX)
    with pytest.raises(NotImplementedError, match=r"lstsq\(rcond=0.9\)"):
        torch.linalg.lstsq(x, MATRIX, rcond=0.9)
    solution = torch.linalg.lstsq(x, MATRIX, rcond=1e-9).solution
    torch.testing.assert_close(solution.detach(), torch.linalg.lstsq(MATRIX, MATRIX, rcond=1e-9).solution)
