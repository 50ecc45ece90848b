"""What a transform keeps belongs to the training that is differentiated, from its first value on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import torchopt_course as oc
from torchopt_course.transforms import (
    cautious,
    centralize,
    clip_global_norm,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema,
    lookahead,
    skip_nonfinite,
)

from ..helpers import parameters

CHAINS: dict[str, Any] = {
    "lookahead": lambda: [lookahead(2)],
    "lookahead of clipped": lambda: [clip_norm(0.5), lookahead(2), ema(0.9)],
    "clipped": lambda: [centralize(), clip_value(0.9), clip_global_norm(0.7)],
    "others": lambda: [skip_nonfinite(), cautious(), decoupled_decay(0.1), ema(0.5)],
}


def slope(weights: Tensor) -> Tensor:
    """A gradient that is still connected to the weights, which the step changes in place."""
    copy = weights.clone()
    return torch.autograd.grad((copy**3 + copy + copy.sum() ** 2).sum(), copy, create_graph=True)[0]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", [oc.SGD, oc.Momentum, oc.Adam])
def test_the_derivative_of_a_training_is_that_of_differences(kind: Any, chain: str) -> None:
    def final(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        weights = [first.clone(), second.clone()]
        optimizer = kind(weights, lr=0.05, differentiable=True, transforms=CHAINS[chain]())
        for _ in range(3):
            for weight in weights:
                weight.grad = slope(weight)
            optimizer.step()
        averages = [optimizer.state[weight].get("ema") for weight in weights]
        return (*weights, *(average for average in averages if average is not None))

    first = torch.tensor([[0.5, -0.8, 1.3], [0.2, 0.9, -1.4]], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([0.7, -0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(final, (first, second), atol=1e-4)


def test_without_it_nothing_kept_has_a_history() -> None:
    (param,) = parameters(["vector"])
    param.grad = torch.ones_like(param)
    optimizer = oc.SGD([param], transforms=[lookahead(2), ema()])
    optimizer.step()
    assert not any(kept.requires_grad for kept in optimizer.state[param].values())
