"""Schedules of the learning rate: reduce on plateau, cyclical rates, and how to find their bounds.

Drop-in for :mod:`torch.optim.lr_scheduler`: names that are not ours are torch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.optim.lr_scheduler as _torch

from .cyclic import CyclicLR
from .option import as_lr
from .plateau import PlateauDetector, ReduceLROnPlateau
from .preview import Schedule, preview_schedule
from .range_curve import RangeTest
from .range_test import lr_range_test

if TYPE_CHECKING:  # torch's own, with their types
    from torch.optim.lr_scheduler import (
        ChainedScheduler,
        ConstantLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        ExponentialLR,
        LambdaLR,
        LinearLR,
        LRScheduler,
        MultiplicativeLR,
        MultiStepLR,
        OneCycleLR,
        PolynomialLR,
        SequentialLR,
        StepLR,
    )

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PlateauDetector",
    "PolynomialLR",
    "RangeTest",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "as_lr",
    "lr_range_test",
    "preview_schedule",
]
__all__ += [name for name in _torch.__all__ if name not in __all__]


if not TYPE_CHECKING:  # type checkers would take every misspelt name

    def __getattr__(name: str) -> Any:
        """Everything else that ``torch.optim.lr_scheduler`` has."""
        if not name.startswith("__") and hasattr(_torch, name):
            return getattr(_torch, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_torch.__all__})
