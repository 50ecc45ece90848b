"""Any option of an optimizer follows a schedule, those of transforms too."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)

import torchopt_course as oc
from torchopt_course.lr_scheduler import as_lr
from torchopt_course.transforms import clip_norm

from ..helpers import parameters, set_gradients


def test_any_option_follows_a_schedule() -> None:
    params = parameters(["vector"])
    optimizer = oc.AdamW(params, weight_decay=0.5, transforms=[clip_norm(2.0)])
    decay = as_lr(optimizer, "weight_decay")

    def schedules() -> list[Any]:
        return [
            CosineAnnealingLR(optimizer, 8),
            SequentialLR(decay, [LinearLR(decay, 0.1, 1.0, 3), CosineAnnealingLR(decay, 8)], [3]),
            LambdaLR(as_lr(optimizer, "max_norm"), lambda step: 0.5**step),
            LambdaLR(as_lr(optimizer, "betas", 1), lambda step: 1 - 0.1 / (step + 1)),
        ]

    alone = torch.optim.SGD(parameters(["vector"]), lr=0.5)
    reference = SequentialLR(alone, [LinearLR(alone, 0.1, 1.0, 3), CosineAnnealingLR(alone, 8)], [3])
    running = schedules()
    for step in range(6):
        group = optimizer.param_groups[0]
        assert group["weight_decay"] == alone.param_groups[0]["lr"]
        assert group["max_norm"] == 2.0 * 0.5**step
        assert group["betas"] == (0.9, 0.999 * (1 - 0.1 / (step + 1)))
        set_gradients(step, params)
        optimizer.step()
        alone.step()
        if step == 3:  # and goes on from a checkpoint
            saved = [each.state_dict() for each in running], optimizer.state_dict()
            optimizer = oc.AdamW(params, weight_decay=0.5, transforms=[clip_norm(2.0)])
            decay = as_lr(optimizer, "weight_decay")
            running = schedules()
            optimizer.load_state_dict(saved[1])
            for each, state in zip(running, saved[0], strict=True):
                each.load_state_dict(state)
        for each in (*running, reference):
            each.step()


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("kind", [oc.SGD, torch.optim.SGD])
def test_a_copy_of_both_schedules_its_own_option(kind: Any, copy_of: Any) -> None:
    optimizer = kind(parameters(["vector"]), lr=0.1, weight_decay=0.5)
    schedule = LinearLR(as_lr(optimizer, "weight_decay"), 1.0, 0.0, 4)
    schedule.step()
    other, its_schedule = copy_of((optimizer, schedule))
    its_schedule.step()
    assert other.param_groups[0]["weight_decay"] == 0.25
    assert optimizer.param_groups[0]["weight_decay"] == 0.375
    with pytest.raises(RuntimeError, match="step the optimizer itself"):
        its_schedule.optimizer.step()


@pytest.mark.parametrize(
    "cycle",
    [
        lambda decay, **how: oc.CyclicLR(decay, 0.0, 0.5, 2, **how),
        lambda decay, **how: CyclicLR(decay, 0.0, 0.5, 2, **how),
        lambda decay, **how: OneCycleLR(decay, 0.5, 9, **how),
    ],
)
@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"betas": (0.7, 0.9)}], ids=str)
def test_a_schedule_of_another_option_leaves_the_momentum_alone(cycle: Any, options: dict[str, Any]) -> None:
    kind = oc.SGD if "momentum" in options else oc.AdamW
    optimizer = kind(parameters(["vector"]), weight_decay=0.1, **options)
    with pytest.raises(ValueError, match="must support momentum or beta1"):
        cycle(as_lr(optimizer, "weight_decay"))
    schedule = cycle(as_lr(optimizer, "weight_decay"), cycle_momentum=False)
    for _ in range(3):
        schedule.step()
    assert {name: optimizer.param_groups[0][name] for name in options} == options
    assert optimizer.param_groups[0]["weight_decay"] != 0.1


def test_an_option_that_is_no_number_follows_none() -> None:
    optimizer = oc.AdamW(parameters(["vector"]))
    with pytest.raises(KeyError, match="no option 'weigt_decay', only lr, betas"):
        as_lr(optimizer, "weigt_decay")
    with pytest.raises(TypeError, match=r"\(0.9, 0.999\), expected a number: give the index of one"):
        as_lr(optimizer, "betas")
    with pytest.raises(TypeError, match="'amsgrad' of parameter group 0 is False"):
        as_lr(optimizer, "amsgrad")
    with pytest.raises(RuntimeError, match="step the optimizer itself"):
        as_lr(optimizer, "weight_decay").step()
