# ruff: noqa: E501
"""Products of matrices, linear layers, contractions."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .drawing import Case, Draw, sample


@sample
def matmul(draw: Draw) -> Case:
    left, right = draw.pick([
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((2, 5, 2, 3), (3, 4)),
    ])  # fmt: skip
    return torch.matmul, (draw.tensor(*left), draw.tensor(*right))


@sample
def linear(draw: Draw) -> Case:
    batch = draw.shape(0, 2)
    inputs = (draw.tensor(*batch, 3), draw.tensor(4, 3), draw.tensor(4))
    return draw.pick(
        [(F.linear, inputs), (F.linear, inputs[:2]), (lambda x, w: F.linear(x, w[0]), inputs[:2])]
    )


@sample
def contract(draw: Draw) -> Case:
    a, b, c = draw.tensor(2, 3), draw.tensor(3, 4), draw.tensor(5, 3, 3)
    return draw.pick([
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), (a, b)), (lambda a, b: torch.einsum("ij,jk", a, b), (a, b)),
        (lambda a, b: torch.einsum("ij,jk->i", a, b), (a, b)), (lambda c: torch.einsum("bii->bi", c), (c,)),
        (lambda a, b, c: torch.einsum("ij,jk,bjl->bkl", a, b, c), (a, b, c)),
        (lambda a, c: torch.einsum("...j,...jk->...k", a[0], c), (a, c)), (lambda c: torch.einsum("bii", c), (c,)),
        (lambda a: torch.einsum("ij->ji", a), (a,)), (lambda a: torch.einsum("ij->", a), (a,)),
        (lambda a, b: torch.outer(a[0], b[0]), (a, b)), (lambda a, b: torch.addmm(b[0], a, b, alpha=0.5), (a, b)),
        (lambda a, b: torch.dot(a[0], b[:, 1]), (a, b)),
    ])  # fmt: skip
