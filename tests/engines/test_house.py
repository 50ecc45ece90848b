"""How much of the house somebody has to walk through: to read a step, to add an engine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import torchopt_course as oc
from torchopt_course.engines import ENGINES
from torchopt_course.engines.bucket import Bucket

from ..helpers import NAMES, ours, parameters, set_gradients

PACKAGE = Path(oc.__file__).parent


def calls(step: Any) -> list[str]:
    """The files of all functions in Python that are called."""
    files: list[str] = []

    def listen(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            files.append(frame.f_code.co_filename)

    sys.setprofile(listen)
    try:
        step()
    finally:
        sys.setprofile(None)
    return files


@pytest.mark.parametrize("name", NAMES)
def test_a_step_whose_guards_hold_is_a_few_calls_in_a_few_files(name: str) -> None:
    params = parameters(["matrix", "vector", "large"])
    optimizer = ours(name)([{"params": params[:2], "lr": 0.03}, {"params": params[2:]}])
    for step in range(3):
        set_gradients(step, params)
        optimizer.step()
    seen = calls(optimizer.step)
    assert len({file for file in seen if file.startswith(str(PACKAGE))}) <= 4, seen
    assert len(seen) <= 15, seen


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_list_of_engines_knows_an_engine(engine: type[Bucket]) -> None:
    knowing = {path for path in PACKAGE.rglob("*.py") if engine.__name__ in path.read_text(encoding="utf-8")}
    own = sys.modules[engine.__module__].__file__
    assert own is not None
    assert knowing == {PACKAGE / "engines/__init__.py", Path(own)}
