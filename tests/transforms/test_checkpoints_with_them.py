"""Checkpoints and copies of optimizers with transforms go on with the same bits."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.transforms import cautious, clip_norm, decoupled_decay, ema, lookahead

from ..helpers import every_engine, parameters, set_gradients
from .test_composition import DecayedSigns

KINDS = ["vector", "matrix", "scalar", "channels_last"]


def chain() -> list[Any]:
    return [clip_norm(1.0), cautious(), decoupled_decay(0.1), lookahead(3), ema(0.7)]


def stepped(optimizer: Any, params: list[Parameter], steps: range) -> None:
    for step in steps:
        set_gradients(step, params)
        optimizer.step()


def assert_goes_on_alike(params: list[Parameter], optimizer: Any, twins: list[Parameter], other: Any) -> None:
    for step in range(50, 54):
        set_gradients(step, params, twins)
        optimizer.step()
        other.step()
    for param, twin in zip(params, twins, strict=True):
        assert torch.equal(param, twin)
        for name, value in optimizer.state[param].items():
            assert torch.equal(other.state[twin][name], value)


@every_engine
def test_checkpoints_go_on_with_the_same_bits(engine: dict[str, Any]) -> None:
    params = parameters(KINDS)
    optimizer = oc.AdamW(params, transforms=chain(), **engine)
    optimizer.param_groups[0]["max_norm"] = 0.5
    stepped(optimizer, params, range(4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twins = [Parameter(param.detach().clone()) for param in params]
    other = oc.AdamW(twins, transforms=chain(), **engine)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.param_groups[0]["max_norm"] == 0.5
    assert_goes_on_alike(params, optimizer, twins, other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_go_on_with_the_same_bits(copied: Any) -> None:
    for make in (lambda params: oc.SGD(params, momentum=0.9, transforms=chain()), DecayedSigns):
        params = parameters(KINDS)
        optimizer = make(params)
        stepped(optimizer, params, range(4))
        twins, other = copied((params, optimizer))
        assert_goes_on_alike(params, optimizer, twins, other)


def test_checkpoints_with_other_transforms_are_refused() -> None:
    params = parameters(KINDS)
    made = {name: oc.Adam(params, transforms=transforms) for name, transforms in {
        "no transforms": [],
        "the transforms clip_norm, ema": [clip_norm(1.0), ema()],
        "the transforms ema, clip_norm": [ema(), clip_norm(1.0)],
    }.items()}  # fmt: skip
    for theirs, one in made.items():
        for ours, other in made.items():
            if ours == theirs:
                other.load_state_dict(one.state_dict())
                continue
            before = str(other.state_dict())
            with pytest.raises(
                ValueError, match=f"group 0 was made with {theirs}, the optimizer with {ours}"
            ):
                other.load_state_dict(one.state_dict())
            assert str(other.state_dict()) == before


def test_torchs_checkpoint_loads_when_told_so() -> None:
    params, twins = parameters(KINDS), parameters(KINDS)
    theirs = torch.optim.Adam(params)
    stepped(theirs, params, range(3))
    optimizer = oc.Adam(twins, transforms=[clip_norm(0.5), lookahead(5), ema(0.9)])
    checkpoint = theirs.state_dict()
    for group in checkpoint["param_groups"]:
        group["transforms"] = optimizer.param_groups[0]["transforms"]
    optimizer.load_state_dict(checkpoint)
    assert optimizer.param_groups[0]["max_norm"] == 0.5
    before = twins[0].detach().clone()
    stepped(optimizer, twins, range(1))
    state = optimizer.state[twins[0]]
    assert state["step"] == 4
    assert torch.equal(state["slow"], before)
    torch.testing.assert_close(state["ema"], 0.9 * before + 0.1 * twins[0].detach())
