"""What a rule reads besides its arguments is never stale, on no engine."""

from __future__ import annotations

import functools
import math
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch as xp
from torch import nn

from torchopt_course import ElementwiseOptimizer

every_engine = pytest.mark.parametrize(
    "engine", [{}, {"fused": False}, {"foreach": True}], ids=["fused", "eager", "foreach"]
)


class Base(ElementwiseOptimizer):
    def __init__(self, params: Any, **engine: bool) -> None:
        super().__init__(params, {"lr": 1.0, **engine})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}


def stepped(rule: Callable[..., Any], engine: dict[str, bool]) -> Callable[[], tuple[float, str]]:
    """A function that takes a step from 0 with a gradient of 1: where it ends, and who took it."""
    param = nn.Parameter(torch.zeros(2))
    param.grad = torch.ones(2)
    optimizer = type("User", (Base,), {"rule": staticmethod(rule)})([param], **engine)

    def step() -> tuple[float, str]:
        with torch.no_grad():
            param.zero_()
        optimizer.step()
        return param[0].item(), optimizer.engine_report()

    return step


def changing(name: str, old: Any, new: Any) -> tuple[Callable[..., Any], Callable[[], None]]:
    """A rule that reads a module's global of any kind, and what changes it."""
    module = types.ModuleType("config_of_mine")
    names = {"xp": xp, "config": module, "math": math}
    exec(SOURCES[name], names)
    exec(old, names)
    return names["rule"], lambda: exec(new, names)  # type: ignore[return-value]


SOURCES = {
    "a number": "def rule(p, g, lr):\n    return p - K * g",
    "a helper": "def rule(p, g, lr):\n    return p - helper(g)",
    "a helper's number": "def helper(g): return K * g\ndef rule(p, g, lr):\n    return p - helper(g)",
    "of a module": "def rule(p, g, lr):\n    return p - config.K * g",
    "of a class": "class Config:\n    K = 1.0\ndef rule(p, g, lr):\n    return p - Config.K * g",
    "in a lambda": "def rule(p, g, lr):\n    return p - (lambda x: K * x)(g)",
    "a default": "def helper(g, k=1.0): return k * g\ndef rule(p, g, lr):\n    return p - helper(g)",
    "a builtin": "def rule(p, g, lr):\n    return p - sum((g, g))",
}
CHANGES = {
    "a number": ("K = 1.0", "K = 5.0"),
    "a helper": ("def helper(g): return 1.0 * g", "def helper(g): return 5.0 * g"),
    "a helper's number": ("K = 1.0", "K = 5.0"),
    "of a module": ("config.K = 1.0", "config.K = 5.0"),
    "of a class": ("Config.K = 1.0", "Config.K = 5.0"),
    "in a lambda": ("K = 1.0", "K = 5.0"),
    "a default": ("helper.__defaults__ = (1.0,)", "helper.__defaults__ = (5.0,)"),
    "a builtin": ("def sum(x): return x[0]", "def sum(x): return 5 * x[0]"),
}
NUMPY = {f"{dtype.__name__} {name}": (name, dtype) for name in ("a number", "of a module") for dtype in
         (np.float32, np.float64, np.int64)}  # fmt: skip


@every_engine
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_heeded_in_the_next_step(name: str, engine: dict[str, bool]) -> None:
    """By the running optimizer, and by a new one: no engine falls back for it."""
    rule, change = changing(name, *CHANGES[name])
    step = stepped(rule, engine)
    result, report = step()
    assert result == -1.0
    assert step()[0] == -1.0
    change()
    assert step()[0] == -5.0
    assert stepped(rule, engine)()[0] == -5.0
    assert {"fused": "fused CPU", "eager": "eager", "foreach": "foreach"}[
        "fused" if not engine else "eager" if "fused" in engine else "foreach"
    ] == report.partition(" engine")[0]


def test_a_number_that_changes_in_each_step_is_not_compiled_in_each() -> None:
    names: dict[str, Any] = {}
    exec(SOURCES["a number"], names)
    step = None
    for k in range(1, 15):
        names["K"] = float(k)
        step = step or stepped(names["rule"], {})
        result, report = step()
        assert result == -k
    assert "eager engine" in report
    assert "User.rule reads names by which something else is called again and again" in report


@every_engine
@pytest.mark.parametrize("case", NUMPY)
def test_numbers_of_numpy(case: str, engine: dict[str, bool]) -> None:
    name, dtype = NUMPY[case]
    old, new = ({"config.K" if "module" in name else "K": dtype(value)} for value in (1, 5))
    module = types.ModuleType("config_of_mine")
    names: dict[str, Any] = {"config": module}
    exec(SOURCES[name], names)

    def put(values: dict[str, Any]) -> None:
        for key, value in values.items():
            setattr(module, "K", value) if "." in key else names.update({key: value})

    put(old)
    step = stepped(names["rule"], engine)
    assert step()[0] == -1.0
    put(new)
    assert step()[0] == -5.0


def closure_over(k: Any) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - k * g

    def change(value: Any) -> None:
        nonlocal k
        k = value

    return rule, change


@every_engine
def test_closures(engine: dict[str, bool]) -> None:
    rule, change = closure_over(1.0)
    step = stepped(rule, engine)
    assert step()[0] == -1.0
    change(5.0)
    assert step()[0] == -5.0


ARRAY, LIST, DICTIONARY, OBJECT = np.ones(()), [1.0], {"k": 1.0}, types.SimpleNamespace(values=[1.0])
TENSOR = torch.ones(())


def of_array(p: Any, g: Any, lr: Any) -> Any:
    return p - g * float(ARRAY)


def of_tensor(p: Any, g: Any, lr: Any) -> Any:
    return p - TENSOR * g


def of_list(p: Any, g: Any, lr: Any) -> Any:
    return p - LIST[0] * g


def of_dictionary(p: Any, g: Any, lr: Any) -> Any:
    return p - DICTIONARY["k"] * g


def of_object(p: Any, g: Any, lr: Any) -> Any:
    return p - OBJECT.values[0] * g


def fill(value: float) -> None:
    ARRAY.fill(value)
    TENSOR.fill_(value)
    LIST[0] = DICTIONARY["k"] = OBJECT.values[0] = value


@every_engine
@pytest.mark.parametrize("rule", [of_array, of_tensor, of_list, of_dictionary, of_object])
def test_what_changes_without_notice_is_read_in_each_step(
    rule: Callable[..., Any], engine: dict[str, bool]
) -> None:
    fill(1.0)
    step = stepped(rule, engine)
    result, report = step()
    assert result == -1.0
    assert f"User.rule reads {rule.__name__[3:].upper()}" in report
    assert "which may change at any time" in report
    fill(5.0)
    assert step()[0] == -5.0
    with pytest.raises(RuntimeError, match=r"fused=True, but .*User\.rule reads"):
        stepped(rule, {"fused": True})()


COUNT = 0


def counting(p: Any, g: Any, lr: Any) -> Any:
    global COUNT
    COUNT += 1
    return p - COUNT * g


def by_lot(p: Any, g: Any, lr: Any) -> Any:
    return p - random.random() * g


def by_torchs_lot(p: Any, g: Any, lr: Any) -> Any:
    return p - xp.rand(()) * g


def by_numpys_lot(p: Any, g: Any, lr: Any) -> Any:
    return p - np.random.rand() * g


def by_type(p: Any, g: Any, lr: Any) -> Any:
    return p - g if isinstance(g, torch.Tensor) else p


def by_torchs_setting(p: Any, g: Any, lr: Any) -> Any:
    return p - g * (2 if torch.get_default_dtype() == torch.float64 else 1)


@every_engine
def test_settings_of_torch_are_read_in_each_step(engine: dict[str, bool]) -> None:
    step = stepped(by_torchs_setting, engine)
    first, _ = step()
    torch.set_default_dtype(torch.float64)
    try:
        second, report = step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert (first, second) == (-1.0, -2.0)
    assert "calls torch.get_default_dtype()" in report


@every_engine
@pytest.mark.parametrize("rule", [counting, by_lot, by_torchs_lot, by_numpys_lot, by_type])
def test_what_is_no_function_of_its_arguments_runs_as_it_stands(
    rule: Callable[..., Any], engine: dict[str, bool]
) -> None:
    step = stepped(rule, engine)
    (first, report), (second, _) = step(), step()
    assert report.startswith("eager engine")
    assert (first != second) == (rule is not by_type)
    assert rule is not by_type or first == -1.0


@functools.cache
def compiled_helper() -> Callable[..., Any]:
    import numba

    @numba.njit
    def helper(x: Any) -> Any:
        return xp.sqrt(x * x) * 3

    return helper  # type: ignore[no-any-return]


@every_engine
def test_helpers_that_numba_has_compiled(engine: dict[str, bool]) -> None:
    """They are called as they were written: with numbers of kernels as with tensors."""
    names = {"helper": compiled_helper()}
    exec("def rule(p, g, lr):\n    return p - helper(g)", names)
    result, report = stepped(names["rule"], engine)()
    assert result == -3.0
    assert engine == {"fused": False} or not report.startswith("eager")


@every_engine
def test_xp_may_be_something_else(engine: dict[str, bool]) -> None:
    """A module that has numpy as its ``xp``, or none at all."""
    for names in ({"xp": np}, {}):
        exec("def helper(g): return xp.sqrt(g)\ndef rule(p, g, lr):\n    return p - xp.abs(helper(g))", names)
        assert stepped(names["rule"], engine)()[0] == -1.0


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    fill(1.0)
    sys.modules.pop("config_of_mine", None)
