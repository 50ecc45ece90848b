"""A network, and how the gradients of a module are compared with torch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torchopt_course import autograd


def lenet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256, 120), nn.ReLU(), nn.Dropout(0.5), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def assert_same_gradients(model: nn.Module, loss: Callable[[nn.Module], Any], tolerance: float) -> None:
    """In units of the largest gradient; the same random numbers for both."""
    twin = copy.deepcopy(model)
    torch.manual_seed(5)
    with autograd.record(model):
        mine = loss(model)
    mine.backward()
    torch.manual_seed(5)
    theirs = loss(twin)
    theirs.backward()
    assert abs(mine.item() - theirs.item()) <= tolerance * abs(theirs.item())
    largest = max(p.grad.abs().max().item() for p in twin.parameters() if p.grad is not None)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            assert (p.grad.dtype, p.grad.shape, p.grad.stride()) == (
                q.grad.dtype,
                q.grad.shape,
                q.grad.stride(),
            ), name
            assert (p.grad - q.grad).abs().max().item() <= tolerance * largest, name
    for (name, mine_), theirs_ in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(mine_, theirs_, msg=name)
