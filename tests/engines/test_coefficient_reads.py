"""Coefficients as a program of numbers: it says what the function says, bit for bit, or nothing."""

from __future__ import annotations

import inspect
import math
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchopt_course
from torchopt_course.engines.rule.coefficients import read_coefficients
from torchopt_course.engines.rule.number_program import NumberProgram

NAMES = ["SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW"]
numbers = st.one_of(st.just(0), st.just(0.0), st.just(1), st.floats(0.0, 2.0), st.floats(1e-12, 1e-3))
rates = st.one_of(st.just(0.0), st.just(0.9), st.just(0.999), st.floats(0.0, 1.0, exclude_max=True))
OPTIONS = {
    "betas": st.one_of(st.tuples(rates, rates), st.lists(rates, min_size=2, max_size=2)),
    "nesterov": st.booleans(),
    "decoupled_weight_decay": st.booleans(),
}


def function_and_options(data: Any, name: str) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    function = getattr(torchopt_course, name).coefficients
    needs = inspect.signature(function).parameters
    options = {n: data.draw(OPTIONS.get(n, numbers), n) for n in needs if n not in ("step", "first")}
    return function, options, counted(data, needs)


def counted(data: Any, needs: Any) -> dict[str, Any]:
    drawn = {"step": st.integers(1, 10_000).map(float), "first": st.booleans()}
    return {name: data.draw(strategy, name) for name, strategy in drawn.items() if name in needs}


def results(program: NumberProgram, options: dict[str, Any], **counted: Any) -> dict[str, Any] | None:
    values = program.values(options, **counted)
    registers = None if values is None else program.evaluate(values)
    return None if registers is None else program.coefficients(registers)


def bits(coefficients: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if value is None or type(value) is bool else float(value).hex()
        for name, value in coefficients.items()
    }


def program_of(source: str, options: dict[str, Any], **more: Any) -> tuple[NumberProgram | str, Any]:
    """The program of ``coefficients(step, lr)`` that returns what ``source`` says; and the function."""
    body = source if "\n" in source else f"    return {{'x': {source}}}"
    names = {"math": math, "np": np, "torch": torch, "random": random, "sqrt": math.sqrt, **more}
    exec(f"def coefficients(step, {', '.join(options)}):\n{body}", names)
    return read_coefficients(names["coefficients"], options, step=3.0), names["coefficients"]


def read(source: str, **options: Any) -> tuple[NumberProgram, Any]:
    program, function = program_of(source, options)
    assert isinstance(program, NumberProgram), program
    return program, function


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ours_bit_for_bit(name: str, data: Any) -> None:
    """Read at one step and evaluated at others, and with other numbers."""
    function, options, at = function_and_options(data, name)
    program = read_coefficients(function, options, **at)
    if not isinstance(program, NumberProgram):
        assert "makes an error" in program or "no finite number" in program, program
        return
    assert bits(results(program, options, **at)) == bits(function(**options, **at))
    other = options | {"lr": data.draw(st.floats(1e-6, 2.0), "another lr")}
    at |= {"step": data.draw(st.integers(1, 10_000).map(float), "another step")} if "step" in at else {}
    found = results(program, other, **at)
    same_kind = type(options["lr"]) is float
    if found is not None:
        assert same_kind
        assert bits(found) == bits(function(**other, **at))
    elif same_kind:  # 1 - beta ** step may be nothing: Python raises
        assert name in ("Adam", "AdamW")


ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "decoupled_weight_decay": False}


def test_a_program_is_for_options_of_the_same_kinds() -> None:
    program = read_coefficients(torchopt_course.Adam.coefficients, ADAM, step=1.0)
    assert isinstance(program, NumberProgram)
    assert program.values(ADAM, step=1.0)
    for change in (
        {"weight_decay": 0.1},  # a float now
        {"weight_decay": 2**53},
        {"weight_decay": False},
        {"lr": torch.tensor(1e-3)},
        {"lr": None},
        {"betas": [0.9, 0.999]},
        {"betas": (0.9, 0.999, 0.5)},
        {"decoupled_weight_decay": True},
        {"decoupled_weight_decay": 0},
    ):
        assert program.values(ADAM | change, step=1.0) is None, change
    assert program.evaluate(program.values(ADAM | {"weight_decay": 1}, step=1.0)) is None  # a choice flips
    assert program.evaluate(program.values(ADAM | {"lr": math.inf}, step=1.0)) is None
    assert program.evaluate(program.values(ADAM | {"betas": (1.0, 0.5)}, step=1.0)) is None  # divides by 0
    sgd = torchopt_course.SGD.coefficients
    options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.0, "nesterov": False}
    first = read_coefficients(sgd, options, first=True)
    assert isinstance(first, NumberProgram)
    assert results(first, options, first=True) == sgd(first=True, **options)
    assert first.values(options, first=False) is None


CHOICES = {
    "a switch": ("weight_decay or None", [0.0, 0.1, 0.0, 0.2]),
    "if": ("1.0 if weight_decay > 0.1 else weight_decay", [0.0, 0.1, 0.2]),
    "max": ("max(weight_decay, 0.1, 2 * weight_decay)", [0.0, 0.01, 0.2, 0.05]),
    "chained": ("weight_decay if 0.1 <= weight_decay < 1 else 0", [0.0, 0.1, 0.999, 1.0]),
    "not": ("not weight_decay", [0.0, 0.1]),
    "in": ("weight_decay in (0.0, 0.5)", [0.0, 0.5, 0.3]),
    "sorted": ("sorted([weight_decay, 0.2, 0.1])[1]", [0.0, 0.15, 0.3]),
    "none": ("0.0 if weight_decay is None or weight_decay == None else weight_decay", [0.0, 1.0]),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_that_come_out_otherwise_are_noticed(case: str) -> None:
    source, values = CHOICES[case]
    for start in values:
        program, function = read(source, weight_decay=start)
        for value in values:
            found = results(program, {"weight_decay": value}, step=3.0)
            expected = function(step=3.0, weight_decay=value)
            assert found is None or bits(found) == bits(expected)
            assert found is not None or value != start


SCHEDULES = {
    "warm-up": "lr * min(step / 1000, 1)",
    "rho of RAdam": """
    rho = 2 / (1 - 0.999) - 1 - 2 * step * 0.999**step / (1 - 0.999**step)
    return {"rectified": rho > 5, "scale": math.sqrt(((rho - 4) * (rho - 2)) / rho) if rho > 5 else lr}""",
    "stairs": "lr * 0.5 ** math.floor(step / 30)",
    "cosine": "lr * (1 + math.cos(math.pi * step / 1000)) / 2",
    "names of math": "lr / sqrt(step) + math.log(step + 1, 2)",
    "loop": """
    for i in range(3):
        lr = lr * (1 - 1 / (step + i))
    return {"x": lr, "y": float(lr), "z": abs(-lr), "n": int(step / 7), "t": True}""",
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules_over_a_training(case: str) -> None:
    """Read anew where a choice flips, and only there."""
    program, function = read(SCHEDULES[case], lr=0.3)
    readings = 1
    for step in map(float, range(1, 2001)):
        found = results(program, {"lr": 0.3}, step=step)
        if found is None:
            program = read_coefficients(function, {"lr": 0.3}, step=step)  # type: ignore[assignment]
            readings += 1
            if isinstance(program, str):  # the square root at rho = 4, the division at step 1
                assert "makes an error" in program
                program, _ = read(SCHEDULES[case], lr=0.3)
                continue
            found = results(program, {"lr": 0.3}, step=step)
        assert bits(found) == bits(function(step=step, lr=0.3))
    assert readings <= 4


FUNCTIONS = [
    *("sqrt", "exp", "expm1", "log", "log2", "log10", "log1p", "fabs", "floor", "ceil", "trunc"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
]
OF_TWO = [
    *(
        "math.atan2(x, y)",
        "math.fmod(x, y)",
        "math.copysign(x, y)",
        "x ** y",
        "math.pow(x, y)",
        "x % y",
        "x // y",
        "float(y) / x",
    ),
    *("int(x) * int(y)", "-int(y)", "2 - int(x) * y"),
]


@settings(max_examples=200, deadline=None)
@given(
    word=st.sampled_from(FUNCTIONS),
    x=st.floats(-50, 50),
    y=st.one_of(st.floats(-50, 50), st.floats(-1e-300, 1e-300), st.integers(-3, 3)),
)
def test_functions_of_math(word: str, x: float, y: float) -> None:
    for source in (f"math.{word}(x)", *OF_TWO):
        options = {"x": x, "y": y}
        program, function = program_of(source, options)
        try:
            expected = function(step=3.0, **options)["x"]
        except (ArithmeticError, ValueError):
            expected = math.inf
        if isinstance(expected, complex) or not math.isfinite(expected):
            assert isinstance(program, str), source
        else:
            assert isinstance(program, NumberProgram), (source, program)
            assert results(program, options, step=3.0)["x"].hex() == float(expected).hex(), source


@settings(max_examples=100, deadline=None)
@given(start=st.integers(-9, 9), other=st.one_of(st.integers(-9, 9), st.integers(-(2**54), 2**54)))
def test_whole_numbers(start: int, other: int) -> None:
    """They are followed as long as double precision has them all, the one zero included."""
    for source in ("n * n + n", "-n", "abs(n) - 3 * n", "n * 0", "n / 7", "n * 0.5", "n * 2**52", "n < 2.5",
                   "math.floor(n)", "int(n)", "math.sqrt(abs(n))", "n % 3",
                   "-7 // (n or 1)", "n // -2"):  # fmt: skip
        program, function = program_of(source, {"n": start})
        if isinstance(program, str):
            assert "no finite number of double precision" in program
            continue
        for n in (start, other):
            found = results(program, {"n": n}, step=1.0)
            assert found is None or bits(found) == bits(function(step=1.0, n=n)), source
        assert results(program, {"n": start}, step=1.0) is not None


def test_whole_numbers_that_double_precision_does_not_have() -> None:
    for source in ("(n + n + 1) - n - n", "(n * 3) - n - n", "1 - (-n - n - 1)"):
        program, _ = read(source, n=1)
        assert results(program, {"n": 2**53 - 1}, step=1.0) is None, source
        assert results(program, {"n": 2**50 - 1}, step=1.0) is not None, source


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
