"""``step`` is called in every way in which torch's can be, and hooks see how."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import torchopt_course as oc

from ..helpers import NAMES, ours, parameters, set_gradients, theirs


def loss() -> float:
    return 5.0


CALLS: dict[str, Callable[[Any], Any]] = {
    "step()": lambda step: step(),
    "step(None)": lambda step: step(None),
    "step(closure=None)": lambda step: step(closure=None),
    "step(closure)": lambda step: step(loss),
    "step(closure=closure)": lambda step: step(closure=loss),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", NAMES)
def test_hooks_see_the_arguments_as_they_were_given(name: str, call: Callable[[Any], Any]) -> None:
    seen: list[list[Any]] = []
    for make in (ours(name), theirs(name)):
        params = parameters(["vector"])
        optimizer, log = make(params), []

        def note(optimizer: Any, args: Any, kwargs: Any) -> None:
            log.append((args[1:], kwargs))  # noqa: B023

        globally = [
            register(note)
            for register in (register_optimizer_step_pre_hook, register_optimizer_step_post_hook)
        ]
        optimizer.register_step_pre_hook(note)
        optimizer.register_step_post_hook(note)
        set_gradients(0, params)
        try:
            log.append(call(optimizer.step))
        finally:
            for handle in globally:
                handle.remove()
        seen.append(log)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


def test_wrong_arguments_are_said_of_step() -> None:
    optimizer = oc.SGD(parameters(["vector"]))
    with pytest.raises(TypeError, match=r"step\(\) takes from 1 to 2 positional arguments"):
        optimizer.step(None, None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"\.step\(\) got an unexpected keyword argument 'loss'"):
        optimizer.step(loss=loss)  # type: ignore[call-overload]
    theirs, mine = (inspect.signature(cls.step) for cls in (torch.optim.SGD, oc.SGD))
    assert [*mine.parameters] == [*theirs.parameters]
    assert [p.default for p in mine.parameters.values()] == [p.default for p in theirs.parameters.values()]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("wraps", [False, True], ids=["plain", "functools.wraps"])
@pytest.mark.parametrize("profiled", [False, True], ids=["hooks", "profiler"])
def test_step_of_the_class_replaced(
    when: str, wraps: bool, profiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody counts the steps of a class: hooks and the profiler are told all the same, once."""

    class Counted(oc.Adam):
        pass

    count = []

    def step(self: Any, closure: Any = None) -> Any:
        count.append(1)
        return original(self, closure)

    original = Counted.step
    replacement = functools.wraps(original)(step) if wraps else step
    if when == "before":
        monkeypatch.setattr(Counted, "step", replacement)
    params, log = parameters(["vector"]), []
    optimizer = Counted(params)
    if when == "after":
        monkeypatch.setattr(Counted, "step", replacement)
    if not profiled:
        optimizer.register_step_pre_hook(lambda *_: log.append("pre"))
        optimizer.register_step_post_hook(lambda *_: log.append("post"))
    set_gradients(0, params)
    if profiled:
        with torch.autograd.profiler.profile() as profile:
            optimizer.step()
        assert [event.key for event in profile.key_averages() if "Optimizer" in event.key] == [
            "Optimizer.step#Counted.step"
        ]
        assert [event.count for event in profile.key_averages() if "Optimizer" in event.key] == [1]
    else:
        optimizer.step()
        assert log == ["pre", "post"]
    assert len(count) == 1
