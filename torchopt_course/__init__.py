"""First-order optimizers, each written once, as on the slide, and run by the engine that suits the machine.

Drop-in for :mod:`torch.optim`: names and submodules that are not (yet) ours are torch's own.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import torch.optim

from . import lr_scheduler, transforms
from .adagrad import Adagrad
from .adam import Adam
from .adamw import AdamW
from .averaged import averaged_weights
from .elementwise import ElementwiseOptimizer
from .engines.rule.namespace import XP
from .lr_scheduler import CyclicLR, ReduceLROnPlateau, lr_range_test, preview_schedule
from .mixed import Mixed
from .release import release_gradients
from .rmsprop import RMSprop
from .sgd import SGD, Momentum
from .whole import TensorOptimizer

if TYPE_CHECKING:  # torch's own, with their types
    from torch.optim import (
        ASGD,
        LBFGS,
        Adadelta,
        Adafactor,
        Adamax,
        Muon,
        NAdam,
        Optimizer,
        RAdam,
        Rprop,
        SparseAdam,
        swa_utils,
    )

    from . import autograd as autograd
    from . import testing as testing

__version__ = "0.1.0"

# What a rule calls `xp`. `import torch as xp` is as good, but torch's signatures know nothing of `over=`.
xp: Any = XP

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CyclicLR",
    "ElementwiseOptimizer",
    "Mixed",
    "Momentum",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rprop",
    "SparseAdam",
    "TensorOptimizer",
    "averaged_weights",
    "lr_range_test",
    "lr_scheduler",
    "preview_schedule",
    "release_gradients",
    "swa_utils",
    "transforms",
]
__all__ += [name for name in torch.optim.__all__ if name not in __all__]

_ON_FIRST_USE = ("autograd", "testing")


if not TYPE_CHECKING:  # type checkers would take every misspelt name

    def __getattr__(name: str) -> Any:
        """The parts that are loaded on first use, and everything else that ``torch.optim`` has."""
        if name in _ON_FIRST_USE:
            return import_module(f"{__name__}.{name}")
        if not name.startswith("_") and hasattr(torch.optim, name):
            return getattr(torch.optim, name)
        if f"{__name__}.{name}" in sys.modules:
            return sys.modules[f"{__name__}.{name}"]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE, *dir(torch.optim)})


def _adopt_submodules() -> None:
    """Make ``from torchopt_course.swa_utils import AveragedModel`` and its like work.

    A submodule of ``torch.optim`` that we do not have is torch's own under our name; in one that we have
    too, names that are not ours are torch's (the function ``adam`` beside the class, for one).
    """
    for each in iter_modules(torch.optim.__path__):
        import_module(f"torch.optim.{each.name}")  # torch has not yet loaded each of them
    for name, theirs in list(sys.modules.items()):
        package, _, module = name.rpartition(".")
        if package == "torch.optim":
            ours = sys.modules.setdefault(f"{__name__}.{module}", theirs)
            if ours is not theirs:
                vars(ours).setdefault("__getattr__", partial(getattr, theirs))


_adopt_submodules()
