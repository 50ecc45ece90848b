"""Torch's own table of optimizer inputs and errors, ``optim_db``: our classes beside its."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch
from torch import nn

from ..helpers import parameters

# torch's table, without its test runner: that imports half of torch, forbids changes of torch.backends and
# loads a hypothesis profile of its own, and the table takes only decorators of torch's tests from it.
RUNNER = ("common_utils", "common_device_type", "common_methods_invocations")
with patch.dict(sys.modules, {f"torch.testing._internal.{name}": MagicMock() for name in RUNNER}):
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum as OptimizerErrorEnum
    from torch.testing._internal.common_optimizers import optim_db

NAMES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]
TABLE = {info.optim_cls.__name__: info for info in optim_db}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
every_name = pytest.mark.parametrize("name", NAMES)
KINDS = ["vector", "matrix", "transposed", "channels_last", "empty"]

# The global flags, of which torch's table leaves the choice to the test.
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "default": {},
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "differentiable": {"differentiable": True},
}
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def cases(name: str, implementation: str, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """The options of each input."""
    for case in TABLE[name].optim_inputs_func(device):
        print(f"{name}, {implementation}, {device}: {case.desc}")  # shown when the test fails
        yield case.kwargs | IMPLEMENTATIONS[implementation]


def twins(kinds: list[str], dtype: torch.dtype, device: str, implementation: str) -> list[list[nn.Parameter]]:
    """Parameters twice; those that a differentiable step changes in place must not be leaves of a graph."""
    return [
        [
            nn.Parameter(param.detach().to(device), requires_grad=implementation != "differentiable")
            for param in parameters(kinds, dtype)
        ]
        for _ in range(2)
    ]


def reference_of(name: str, params: Any, options: dict[str, Any]) -> torch.optim.Optimizer:
    # (With `capturable` torch computes what it unbiases with in single precision.)
    others = ("fused", "differentiable", "foreach", "capturable")
    plain = {key: value for key, value in options.items() if key not in others}
    return getattr(torch.optim, name)(params, **copy.deepcopy(plain), foreach=False)
