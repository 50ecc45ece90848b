"""Functions of coefficients, their programs, and what either gives."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
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
