"""Tensors of the steps' own lie beside the parameters, wherever the user wants new tensors to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import every_engine
from ..optimizers.stored import B, assert_same_tensors

OPTIONS: list[dict[str, Any]] = [
    {},
    {"state_dtype": B, "rounding": "kahan"},
    {"state_dtype": "8bit", "rounding": "stochastic"},
    {"transforms": [oc.transforms.clip_global_norm(0.5)]},
    {"transforms": [oc.transforms.skip_nonfinite()]},
]


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Stands for a GPU, while parameters are kept on the host."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def stepped(params: list[Parameter], options: dict[str, Any]) -> tuple[list[Parameter], Any]:
    optimizer = oc.Adam(params, lr=0.1, **options)
    for step in range(3):
        for param in params:
            index = torch.arange(param.numel(), device="cpu").view_as(param)
            param.grad = torch.sin(index * (step + 1.0))
        optimizer.step()
    return params, optimizer


@every_engine
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_is_the_same(options: dict[str, Any], engine: dict[str, bool], elsewhere: None) -> None:
    def parameters() -> list[Parameter]:
        return [Parameter(torch.ones(shape, device="cpu")) for shape in ((5000,), (3, 5))]

    mine = stepped(parameters(), options | engine)
    torch.set_default_device(None)
    assert_same_tensors(mine, stepped(parameters(), options | engine))
