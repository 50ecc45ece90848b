"""First-order optimizers, each written once, as on the slide, and fast on every machine.

Drop-in for :mod:`torch.optim`: names that are not (yet) ours are torch's own.
"""

from __future__ import annotations

from typing import Any

from . import lr_scheduler
from .adagrad import Adagrad
from .adam import Adam, AdamW
from .elementwise import ElementwiseOptimizer
from .lr_scheduler import CyclicLR, ReduceLROnPlateau, lr_range_test, preview_schedule
from .rmsprop import RMSprop
from .sgd import SGD, Momentum

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CyclicLR",
    "ElementwiseOptimizer",
    "Momentum",
    "RMSprop",
    "ReduceLROnPlateau",
    "__version__",
    "lr_range_test",
    "lr_scheduler",
    "preview_schedule",
]


def __getattr__(name: str) -> Any:
    """The parts that are loaded on first use, and everything else that ``torch.optim`` has."""
    import importlib

    import torch.optim

    if name in ("autograd", "testing"):
        return importlib.import_module(f"{__name__}.{name}")
    if not name.startswith("_") and hasattr(torch.optim, name):
        return getattr(torch.optim, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
