"""Adafactor and Muon take torch's steps, go from its checkpoints and back, and refuse what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from recipes.zoo.adafactor import Adafactor
from recipes.zoo.muon import Muon

MATRICES = [(4, 3), (3, 7), (4, 3), (1, 5)]
CASES: list[tuple[Any, dict[str, Any], list[tuple[int, ...]]]] = [
    (Adafactor, {"weight_decay": 0.1, "lr": 0.05, "d": 1.5}, [*MATRICES, (6,), (), (2, 3, 4)]),
    (Adafactor, {"maximize": True, "eps": (1e-6, 1e-2), "beta2_decay": -0.5}, [(4, 3), (6,)]),
    (Muon, {"lr": 0.02}, MATRICES),
    (
        Muon,
        {"nesterov": False, "weight_decay": 0, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
        MATRICES,
    ),
]


def parameters(shapes: list[tuple[int, ...]]) -> list[Parameter]:
    torch.manual_seed(0)
    return [Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]


def run(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(1000 + step)
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.randn_like(param)
        optimizer.step()


@pytest.mark.parametrize(("ours", "options", "shapes"), CASES)
def test_sixty_steps_of_torch(ours: Any, options: Any, shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon's iteration in float64 on both sides: rounding to bfloat16 would hide everything else."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    monkeypatch.setattr(torch, "bfloat16", torch.float64)  # by that name torch 2.15 asks for it
    params, twins = parameters(shapes), parameters(shapes)
    start = [p.detach().clone() for p in params]
    mine, theirs = ours(params, **options), getattr(torch.optim, ours.__name__)(twins, **options)
    run(mine, range(30))
    run(theirs, range(30))
    # In the middle each goes on from the other's checkpoint.
    states = copy.deepcopy((mine.state_dict(), theirs.state_dict()))
    mine.load_state_dict(states[1])
    theirs.load_state_dict(states[0])
    run(mine, range(30, 60))
    run(theirs, range(30, 60))
    for param, twin, before in zip(params, twins, start, strict=True):
        torch.testing.assert_close(param.detach(), twin.detach(), rtol=1e-9, atol=1e-9)
        assert (param - before).abs().max() > 1e-3
        assert {name: s.shape for name, s in mine.state[param].items()} == {
            name: s.shape for name, s in theirs.state[twin].items()
        }


def test_muon_in_bfloat16_is_near_torch() -> None:
    params, twins = parameters(MATRICES), parameters(MATRICES)
    run(Muon(params), range(10))
    run(torch.optim.Muon(twins), range(10))
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param.detach(), twin.detach(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("ours", "options", "match"),
    [
        (Muon, {"adjust_lr_fn": "other"}, "adjust_lr_fn is 'other', expected one of None, 'original'"),
        (Muon, {"ns_steps": 100}, "ns_steps is 100"),
        (Muon, {"momentum": -1.0}, "momentum: -1.0"),
        (Muon, {}, r"Muon cannot take parameter 0 of group 0: it has the shape \(3,\), expected a matrix"),
        (Adafactor, {"beta2_decay": 0.5}, "beta2_decay"),
        (Adafactor, {"d": 0.5}, "clipping threshold"),
        (Adafactor, {"eps": (None, -1.0)}, "epsilon2: -1.0"),
    ],
)
def test_refused(ours: Any, options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ours([Parameter(torch.ones(3))], **options)


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 0)])
def test_a_matrix_of_nothing_stays_and_the_others_go_on(shape: tuple[int, int]) -> None:
    """torch's Muon divides by its number of columns."""
    params = [Parameter(torch.ones(shape)), Parameter(torch.ones(2, 2))]
    for param in params:
        param.grad = torch.ones_like(param)
    Muon(params).step()
    assert params[0].shape == shape
    assert (params[1] < 1).all()
