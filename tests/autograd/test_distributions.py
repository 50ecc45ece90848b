"""torch.distributions with variables as parameters: densities, and samples that move with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from torchopt_course.autograd import Variable

X = torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
A = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
COUNTS = torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64)
B = torch.tensor([2.0, 0.7, 1.1], dtype=torch.float64)

DISTRIBUTIONS: dict[str, tuple[Callable[[Any, Any], Any], bool, Tensor]] = {
    "Normal": (distributions.Normal, True, X),
    "LogNormal": (distributions.LogNormal, True, X),
    "Laplace": (distributions.Laplace, True, X),
    "Beta": (distributions.Beta, True, X),
    "Gamma": (distributions.Gamma, True, X),
    "Uniform": (lambda a, b: distributions.Uniform(-a, b), True, X),
    "StudentT": (lambda a, b: distributions.StudentT(a + 1, b), True, X),
    "Gumbel": (distributions.Gumbel, True, X),
    "Exponential": (lambda a, b: distributions.Exponential(a * b), True, X),
    "Dirichlet": (lambda a, b: distributions.Dirichlet(a + b), True, X / X.sum()),
    "Poisson": (lambda a, b: distributions.Poisson(a * b), False, COUNTS),
    "Bernoulli": (lambda a, b: distributions.Bernoulli(logits=a - b), False, COUNTS.clamp(max=1)),
    "Categorical": (lambda a, b: distributions.Categorical(logits=a * b), False, torch.tensor(2)),
}  # fmt: skip


def gradients(f: Callable[[Any, Any], Any]) -> tuple[list[Tensor], list[Tensor]]:
    ours, theirs = [Variable(A), Variable(B)], [A.clone().requires_grad_(), B.clone().requires_grad_()]
    for pair in (ours, theirs):
        torch.manual_seed(0)
        (f(*pair) * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)).sum().backward()
    zero = torch.zeros_like(A)
    return (
        [zero if v.grad is None else v.grad.detach() for v in ours],
        [zero if p.grad is None else p.grad for p in theirs],
    )


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_log_prob(name: str):
    make, _, value = DISTRIBUTIONS[name]
    torch.testing.assert_close(*gradients(lambda a, b: make(a, b).log_prob(value)))


@pytest.mark.parametrize("name", [name for name, (_, moves, _) in DISTRIBUTIONS.items() if moves])
def test_rsample(name: str):
    make = DISTRIBUTIONS[name][0]
    torch.testing.assert_close(*gradients(lambda a, b: make(a, b).rsample()))
