"""A range test without a model, for curves that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from torchopt_course import lr_range_test
from torchopt_course.lr_scheduler import RangeTest

from .twins import make_optimizer

NOTHING = nn.Module()


def a_curve(loss_at: Callable[[float], float], **options: Any) -> RangeTest:
    """A test of a "model" whose loss depends on nothing but the rate."""
    optimizer = make_optimizer()
    return lr_range_test(
        lambda batch: loss_at(optimizer.param_groups[0]["lr"]), [None], NOTHING, optimizer, **options
    )
