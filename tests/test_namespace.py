"""``torchopt_course`` in the place of ``torch.optim`` in import lines; what isinstance says."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc

from .helpers import NAMES, ours

OURS = {"SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "ReduceLROnPlateau", "CyclicLR"}
SUBMODULES = [module.name for module in pkgutil.iter_modules(torch.optim.__path__)]


@pytest.mark.parametrize("module", ["", ".lr_scheduler"])
def test_star_import(module: str) -> None:
    """What torch's star brings, with our classes in it, and what is ours alone."""
    mine: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    exec(f"from torchopt_course{module} import *", mine)
    exec(f"from torch.optim{module} import *", reference)
    for name in reference.keys() - {"__builtins__", "lr_scheduler"}:
        assert (mine[name] is reference[name]) != (name in OURS), name
    assert mine.keys() - reference.keys() <= set(importlib.import_module(f"torchopt_course{module}").__all__)
    assert not any(name.startswith("_") for name in mine.keys() - {"__builtins__"})


@pytest.mark.parametrize("name", SUBMODULES)
def test_submodules(name: str) -> None:
    """Each can be imported under our name, and every public name in it is there."""
    mine = importlib.import_module(f"torchopt_course.{name}")
    reference = importlib.import_module(f"torch.optim.{name}")
    assert getattr(oc, name) is mine
    for public in getattr(reference, "__all__", ()):
        assert (getattr(mine, public) is getattr(reference, public)) != (public in OURS), public
        if public in OURS:
            assert getattr(mine, public) is getattr(oc, public)


def test_import_lines() -> None:
    """As users write them."""
    from torchopt_course.swa_utils import AveragedModel

    from torchopt_course import swa_utils
    from torchopt_course.adam import Adam, adam
    from torchopt_course.adamw import AdamW
    from torchopt_course.lr_scheduler import LRScheduler, ReduceLROnPlateau, _LRScheduler
    from torchopt_course.optimizer import Optimizer, ParamsT, required

    assert swa_utils.AveragedModel is AveragedModel is torch.optim.swa_utils.AveragedModel
    assert (Adam, AdamW, ReduceLROnPlateau) == (oc.Adam, oc.AdamW, oc.ReduceLROnPlateau)
    assert adam is importlib.import_module("torch.optim.adam").adam
    assert Optimizer is torch.optim.Optimizer
    assert LRScheduler is torch.optim.lr_scheduler.LRScheduler
    assert issubclass(_LRScheduler, LRScheduler)
    assert ParamsT is not None
    assert repr(required) == "<required parameter>"
    for line in ("torchopt_course.adan", "torchopt_course.swa_utils.x"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(line)
    with pytest.raises(ImportError, match="adan"):
        exec("from torchopt_course.adam import adan")


def test_dir_shows_all_of_it() -> None:
    assert set(dir(torch.optim)) <= set(dir(oc))
    assert {"Momentum", "autograd", "testing", "lr_range_test", "__version__"} <= set(dir(oc))
    for name in dir(oc):
        getattr(oc, name)
    assert set(torch.optim.lr_scheduler.__all__) <= set(dir(oc.lr_scheduler))


# -- isinstance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_is_an_instance_of_torchs_class(name: str) -> None:
    """Accelerate asks before it hands over to DeepSpeed; a copy and a pickle are still our class."""
    reference = torch.optim.SGD if name == "Momentum" else getattr(torch.optim, name)
    optimizer = ours(name)([nn.Parameter(torch.ones(2))])
    assert isinstance(optimizer, reference)
    assert isinstance(optimizer, torch.optim.AdamW) == (name == "AdamW")
    for twin in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(twin) is getattr(oc, name)
        assert repr(twin).startswith(f"{name} (")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_torchs_class_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it defines, but for the base class of all optimizers, stands behind something of ours."""
    cls: Any = getattr(oc, name)
    reference = torch.optim.SGD if name == "Momentum" else getattr(torch.optim, name)

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("torch's own method was called")

    for kind in reference.__mro__[: reference.__mro__.index(torch.optim.Optimizer)]:
        for method, value in list(vars(kind).items()):
            if callable(value):
                # `_init_group` is torch's helper for its own step; nobody else calls it.
                owner = next(base for base in cls.__mro__ if method in vars(base))
                assert owner.__module__.startswith("torchopt_course") or method == "_init_group"
                monkeypatch.setattr(kind, method, forbidden)
    weights = nn.Parameter(torch.ones(3))
    optimizer = cls([weights])
    weights.grad = torch.ones(3)
    optimizer.step()
    other = copy.deepcopy(optimizer)
    other.load_state_dict(optimizer.state_dict())
    other.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    other.zero_grad()
    repr(other)
