"""Coefficients as a program of numbers: it says what the function says, bit for bit, or nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchopt_course
from torchopt_course.engines.rule.coefficients import read_coefficients
from torchopt_course.engines.rule.number_program import NumberProgram

from .programs import NAMES, bits, function_and_options, program_of, read, results


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
