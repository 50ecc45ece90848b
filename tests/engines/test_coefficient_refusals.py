"""Coefficients that no program can say are refused with the reason; what they call and read is followed."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from torchopt_course.engines.rule.coefficients import read_coefficients
from torchopt_course.engines.rule.number_program import NumberProgram

from .programs import program_of, read, results

REFUSED = {
    "round(lr, 3)": "__round__",
    "float(f'{lr:.3f}')": "__format__",
    "float(str(lr))": "__str__",
    "[1.0, 2.0][int(lr)]": "__index__",
    "list(range(int(step)))[0]": "__index__",
    "{1.0: 2.0}[lr]": "__hash__",
    "{1.0: 2.0}.get(lr, 3.0)": "__hash__",
    "lr.item()": ".item",
    "lr if lr.__class__ is float else max(lr, 0.0)": ".__class__",
    "lr if 'hex' in dir(lr) else max(lr, 0.0)": ".__",
    "lr.__add__(1.0)": ".__add__",
    "print('a step') or lr": "print",
    "lr * torch.cuda.device_count()": "torch.cuda.device_count",
    "lr * torch.distributed.is_initialized()": "torch.distributed.is_initialized",
    "lr if isinstance(lr, float) else 0.0": "isinstance",
    "lr if type(lr) is float else 0.0": "type",
    "getattr(lr, 'x', 0.0)": "getattr",
    "sum([lr, step, 0.1])": "sum",
    "math.prod([lr, step])": "math.prod",
    "math.hypot(lr, step)": "__float__",
    "math.fsum([lr, step])": "__float__",
    "math.gamma(step)": "__float__",
    "np.sqrt(step)": "__array_ufunc__",
    "np.float64(0.5) * lr": "__array_ufunc__",
    "lr * np.float64(0.5)": "float64",
    "torch.tensor(0.5) * lr": "torch.tensor",
    "torch.rand(()).item()": "torch.rand",
    "torch.sqrt(lr)": "torch.sqrt",
    "random.random()": "random",
    "lr ** 0.5 if lr < 0 else (-lr) ** 0.5": "no finite number",
    "1 / (lr - lr)": "makes an error",
    "lr * 1e308 * 1e308": "inf",
    "int(step) ** 2": "whole number",
    "2 ** int(step)": "whole number",
    "lr * (2**53 + 1)": str(2**53 + 1),
    "(lr, lr)": "tuple",
    "'adam'": "str",
    "pow(int(step), 2, 5)": "modulus",
    "LIST[0] * lr": "LIST",
    "divmod(step, 3)[0]": "__divmod__",
    "int(step) | 1": "__or__",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_no_program_can_say_is_refused_with_the_reason(source: str) -> None:
    program, _ = program_of(source, {"lr": 0.5}, LIST=[1.0])
    assert isinstance(program, str)
    assert REFUSED[source] in program


def test_a_pattern_that_asks_for_a_class_is_refused() -> None:
    source = """
    match lr:
        case float():
            return {"x": lr}
        case _:
            return {"x": max(lr, 0.0)}"""
    assert program_of(source, {"lr": 0.5})[0] == "asks for the class of a number, with match"
    match = """
    match step:
        case 1.0 | 2.0:
            return {"x": 2 * lr}
        case _ if step < 10:
            return {"x": lr}"""
    program, _ = read(match, lr=0.5)
    assert [results(program, {"lr": 0.5}, step=float(s)) for s in (1, 2, 3, 9, 10)] == [
        None, None, {"x": 0.5}, {"x": 0.5}, None,
    ]  # fmt: skip


def test_a_refusal_is_no_error_that_a_function_could_take_for_its_own() -> None:
    for caught in ("Exception", "BaseException", "(TypeError, ZeroDivisionError)"):
        for bad in ("1 / (step - 3.0)", "[1, 2][step]", "math.gamma(step)", "step.item()"):
            source = f"""
    try:
        x = {bad}
    except {caught}:
        x = 0.0
    return {{"x": x}}"""
            assert isinstance(program_of(source, {"lr": 0.5})[0], str)


@pytest.mark.parametrize("value", [torch.tensor(0.1), 1 + 0j, {"a": 1}, np.float64(0.1), math.inf, math.nan,
                                   2**53, (0.9, torch.tensor(0.9)), ((0.9,),), len], ids=str)  # fmt: skip
def test_options_that_are_no_numbers_of_double_precision(value: Any) -> None:
    program, _ = program_of("1.0", {"lr": value})
    assert isinstance(program, str)
    assert "is given lr" in program


def test_options_that_are_no_numbers_are_part_of_what_a_program_is_for() -> None:
    program, function = read(
        "2.0 if mode == 'fast' and on and not none else 1.0", mode="fast", on=True, none=None
    )
    options = {"mode": "fast", "on": True, "none": None}
    assert results(program, options, step=3.0) == function(step=3.0, **options) == {"x": 2.0}
    for change in ({"mode": "slow"}, {"on": False}, {"on": 1}, {"none": 0}):
        assert program.values(options | change, step=3.0) is None


def test_helpers_and_names() -> None:
    config = types.SimpleNamespace(scale=1.5)
    names: dict[str, Any] = {"math": math, "root": math.sqrt, "K": 2.0, "config": config}
    exec(
        "def helper(x, k=3.0):\n    return k * root(x) if x > 1 else math.exp(x)\n"
        "def coefficients(step, lr):\n    return {'x': K * helper(lr * step) + config.scale}",
        names,
    )
    function = names["coefficients"]
    program = read_coefficients(function, {"lr": 0.5}, step=3.0)
    assert isinstance(program, NumberProgram)
    assert results(program, {"lr": 0.7}, step=4.0) == function(step=4.0, lr=0.7)
    assert results(program, {"lr": 0.1}, step=4.0) is None
    assert program.holds()
    names["K"] = 5.0
    assert not program.holds()
    names["K"] = 2.0  # another object of the same value: read again
    again = read_coefficients(function, {"lr": 0.5}, step=3.0)
    assert isinstance(again, NumberProgram)
    assert again.holds()
    names["helper"].__defaults__ = (4.0,)
    assert not again.holds()
    again = read_coefficients(function, {"lr": 0.5}, step=3.0)
    config.scale = 2.5
    assert not again.holds()  # type: ignore[union-attr]


def test_closures() -> None:
    def make() -> tuple[Callable[..., Any], Callable[[float], None]]:
        power = 2.0

        def coefficients(step: float, lr: float) -> dict[str, float]:
            return {"x": math.exp(lr) ** power, "y": root(step)}

        def change(value: float) -> None:
            nonlocal power
            power = value

        root = math.sqrt
        return coefficients, change

    function, change = make()
    program = read_coefficients(function, {"lr": 0.5}, step=3.0)
    assert isinstance(program, NumberProgram)
    assert results(program, {"lr": 0.7}, step=4.0) == function(step=4.0, lr=0.7)
    change(3.0)
    assert not program.holds()


@pytest.mark.parametrize("function", [math.sqrt, type("Callable", (), {"__call__": lambda self, lr: {}})()])
def test_no_plain_function(function: Any) -> None:
    assert "no plain function" in str(read_coefficients(function, {"lr": 0.5}))
