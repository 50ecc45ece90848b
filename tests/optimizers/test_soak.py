"""A short soak of each optimizer; ``make soak`` runs the long one. And the soak itself can fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torchopt_course as oc

from ..helpers import NAMES
from . import soak

EVENTS = {"gradient vanishes", "group added", "lr changed", "weight_decay changed", "saved, loaded",
          "saved, loaded anew", "deep copy", "p.data replaced"}  # fmt: skip


QUICK = ("SGD", "RMSprop", "Adam")  # the others in `make test-slow`


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in NAMES]
)
def test_short_soak(name: str) -> None:
    report = soak.soak(name, steps=60, seed=22)
    assert report.events.keys() == EVENTS, "everything has happened; another seed if the events were changed"
    assert report.passed, report


class Leaking(oc.SGD):
    kept: list[Any] = []

    def step(self, closure: Any = None) -> Any:
        self.kept.append(bytearray(4000))
        return super().step(closure)


class Forgetting(oc.Adam):
    """After loading, one bias correction is off by one."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.state[self.param_groups[0]["params"][0]]["step"] += 1


@pytest.mark.parametrize(("make", "name"), [(Leaking, "SGD"), (Forgetting, "Adam")])
def test_soak_notices(make: type[torch.optim.Optimizer], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "ours", lambda name: make)
    report = soak.soak(name, steps=60, seed=22)
    assert not report.passed
    assert report.traced > soak.MOST_TRACED or make is not Leaking
    assert (report.difference > soak.TOLERANCE) == (make is Forgetting)
