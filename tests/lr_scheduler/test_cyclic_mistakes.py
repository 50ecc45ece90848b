"""CyclicLR: a bad value is named at construction, and the optimizer left alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from torchopt_course import CyclicLR

from .twins import make_optimizer, one_over, step_as_trained

TorchCyclic = torch_schedulers.CyclicLR


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"base_lr": -0.1}, ValueError, "-0.1"),
        ({"base_lr": math.nan}, ValueError, "nan"),
        ({"base_lr": [0.1, 0.2, 0.3]}, ValueError, "base_lr has 3 values, param_groups has 2"),
        ({"base_lr": None}, TypeError, "base_lr"),
        ({"max_lr": [1.0]}, ValueError, "max_lr has 1 values"),
        ({"max_lr": [1.0, -1.0]}, ValueError, "-1.0"),
        ({"max_lr": "high"}, TypeError, "max_lr.*'high'"),
        ({"step_size_up": 0}, ValueError, "step_size_up: 0"),
        ({"step_size_up": -3}, ValueError, "step_size_up: -3"),
        ({"step_size_down": -1}, ValueError, "-1"),
        ({"mode": "triangle"}, ValueError, "'triangle'"),
        ({"scale_fn": one_over, "scale_mode": "cycles"}, ValueError, "'cycles'"),
        ({"gamma": 0.0, "mode": "exp_range"}, ValueError, "gamma: 0.0"),
        ({"gamma": math.nan}, ValueError, "gamma: nan"),
        ({"gamma": None}, TypeError, "gamma: None"),
        ({"step_size_up": "3"}, TypeError, "step_size_up: '3'"),
        ({"step_size_up": None}, TypeError, "step_size_up: None"),
        ({"base_momentum": -0.1}, ValueError, "-0.1"),
        ({"max_momentum": [0.9]}, ValueError, "max_momentum has 1 values"),
    ],
)
def test_a_bad_value_is_named_and_the_optimizer_left_alone(
    change: dict[str, Any], error: type, named: str
) -> None:
    optimizer = make_optimizer(groups=2)
    before = str(optimizer.param_groups)
    with pytest.raises(error, match=named):
        CyclicLR(optimizer, **{"base_lr": 0.1, "max_lr": 1.0, **change})
    assert str(optimizer.param_groups) == before


def test_what_cannot_be_scheduled() -> None:
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        CyclicLR([], 0.1, 1.0)  # type: ignore[arg-type]
    adagrad = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="Adagrad has neither: pass cycle_momentum=False"):
        CyclicLR(adagrad, 0.1, 1.0)
    CyclicLR(adagrad, 0.1, 1.0, cycle_momentum=False)
    with pytest.raises(ValueError, match=r"max_momentum: 1.0 \(expected a number in \[0, 1\)"):
        CyclicLR(make_optimizer("Adam"), 0.1, 1.0, max_momentum=1.0)


def test_torch_takes_an_unknown_scale_mode_for_iterations() -> None:
    lrs = []
    for mode in ("cycles", "iterations"):
        scheduler = TorchCyclic(make_optimizer(), 0.0, 1.0, 4, scale_fn=one_over, scale_mode=mode)  # type: ignore[arg-type]
        step_as_trained(scheduler)
        lrs += scheduler.get_last_lr()
    assert lrs[0] == lrs[1]
