"""Ours and torch's side by side, of which each takes the same steps and the same changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import torchopt_course as oc

from ..helpers import assert_same, engines_used, parameters, set_gradients

KINDS = ["vector", "matrix", "channels_last", "scalar"]
Pair = tuple[oc.Adam, torch.optim.Adam]


def pair(dtype: torch.dtype = torch.float32) -> tuple[list[nn.Parameter], list[nn.Parameter], Pair]:
    mine, reference = parameters(KINDS, dtype), parameters(KINDS, dtype)
    optimizers = oc.Adam(mine, lr=0.01, fused=True), torch.optim.Adam(reference, lr=0.01)
    run(mine, reference, optimizers, range(3))
    return mine, reference, optimizers


def run(mine: list[nn.Parameter], reference: list[nn.Parameter], optimizers: Pair, steps: range) -> None:
    for step in steps:
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, reference, *optimizers)


def both(change: Callable[[nn.Parameter, torch.optim.Optimizer], None], i: int = 1) -> None:
    """Apply a change to parameter i and its optimizer on both sides, and go on."""
    mine, reference, optimizers = pair()
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        change(params[i], optimizer)
    run(mine, reference, optimizers, range(3, 6))
    assert not engines_used(optimizers[0])["eager"], "what is plainly dense again must be fused again"
