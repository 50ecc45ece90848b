"""First-order optimizers, each written once, as on the slide, and fast on every machine.

Drop-in for :mod:`torch.optim`: names that are not (yet) ours are torch's own.
"""

from __future__ import annotations

from typing import Any

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .elementwise import ElementwiseOptimizer
from .rmsprop import RMSprop
from .sgd import SGD, Momentum

__version__ = "0.1.0"

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "ElementwiseOptimizer", "Momentum", "RMSprop", "__version__"]


def __getattr__(name: str) -> Any:
    """Everything else that ``torch.optim`` has, so that ``import torchopt_course as optim`` is enough."""
    import torch.optim

    if not name.startswith("_") and hasattr(torch.optim, name):
        return getattr(torch.optim, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
