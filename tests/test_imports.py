"""``import torchopt_course`` is as cheap as ``import torch``: the rest comes on first use."""

from __future__ import annotations

import json

import pytest

from .helpers import run_python

# One process, in which one thing after the other is done: to start it costs more than all that it does.
PROGRAM = """
import json, sys, torch
news = {}
def note(what, before):
    news[what] = sorted(set(sys.modules) - before)
before = set(sys.modules)
import torchopt_course as oc
note("package", before)

import torchopt_course.autograd
note("autograd", before)

p = torch.nn.Parameter(torch.ones(1)); o = torch.optim.SGD([p])
oc.lr_range_test(lambda batch: 1.0, [0], torch.nn.Module(), o, iterations=2)
oc.preview_schedule(lambda o: oc.CyclicLR(o, 0.1, 1.0), 3)
note("schedules", before)
print(json.dumps(news))
"""
EXTRAS = {"matplotlib", "sklearn", "sympy", "tensorboard"}
COMPILERS = {"numba", "llvmlite", "triton"}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Modules that came after torch, by what had been done."""
    done = run_python(PROGRAM)
    assert done.returncode == 0, done.stderr
    return {what: set(names) for what, names in json.loads(done.stdout).items()}


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_package_brings_nothing_that_can_wait(loaded: dict[str, set[str]]) -> None:
    assert "torchopt_course" in loaded["package"]
    assert not packages(loaded["package"]) & (COMPILERS | EXTRAS)
    parts = ("torchopt_course.autograd", "torchopt_course.playground")
    assert not any(name.startswith(parts) for name in loaded["package"])


def test_the_autograd_brings_what_it_needs_now_and_then_when_it_needs_it(loaded: dict[str, set[str]]) -> None:
    assert "torchopt_course.autograd" in loaded["autograd"]
    assert not packages(loaded["autograd"]) & EXTRAS


def test_range_test_and_preview_draw_nothing_unasked(loaded: dict[str, set[str]]) -> None:
    assert not packages(loaded["schedules"]) & (EXTRAS - {"sympy"})  # which torch's own optimizers import
