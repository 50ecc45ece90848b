"""Would these tests notice a wrong derivative? Break every rule of the table in turn and see.

A mutant has the sign of one rule changed, or its result doubled; or the sum that undoes broadcasting replaced
by a choice. It is killed if one of a few samples of its primitive fails.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from torchopt_course.autograd import PRIMITIVES, Primitive, reverse
from torchopt_course.autograd.primitives.rules import Rule

from .agreement import TOLERANCE, check_first_order, check_second_order
from .samples import FIRST_ORDER, SAMPLES, Draw

# Rules that are zero whatever one does to them.
ZERO = {"sign", "floor", "ceil", "trunc", "round"}
ZERO_RULES = {("overwrite", "x"), ("copysign", "b")}

killed: list[str] = []


def negated(g: Any) -> Any:
    return -g


def doubled(g: Any) -> Any:
    return 2 * g


def mutants(op: Primitive) -> Iterator[tuple[str, Any]]:
    for change in (negated, doubled):
        for arg in op.rules:
            if (op.name, arg) in ZERO_RULES:
                continue
            yield f"{change.__name__} VJP of {arg}", mutated_rule(op, op.rules, arg, change)
        for arg in op.kernels:
            yield f"{change.__name__} kernel of {arg}", mutated_rule(op, op.kernels, arg, change)
        if callable(op.jvp):
            yield f"{change.__name__} JVP", mutated_jvp(op, change)


@contextmanager
def mutated_rule(op: Primitive, where: dict[str, Rule], arg: str, change: Callable) -> Iterator[None]:
    """The rule with its result changed. If it is not a kernel, the kernel goes, so that the rule runs."""
    original, kernels = where[arg], dict(op.kernels)

    def wrong(*args: Any) -> Any:
        result = original.function(*args)
        if isinstance(result, list | tuple):
            return [None if r is None else change(r) for r in result]
        return change(result)

    where[arg] = original._replace(function=wrong)
    if where is op.rules:
        op.kernels.pop(arg, None)
    op.plans.clear()
    try:
        yield
    finally:
        where[arg], op.kernels = original, kernels
        op.plans.clear()


@contextmanager
def mutated_jvp(op: Primitive, change: Callable) -> Iterator[None]:
    original = op.jvp

    @functools.wraps(original)  # what it asks for is read from its signature
    def wrong(**known: Any) -> Any:
        return change(original(**known))

    op.jvp = wrong
    try:
        yield
    finally:
        op.jvp = original


def survives(name: str, examples: int = 40) -> bool:
    sample = SAMPLES[name]

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        f, inputs = sample(Draw(data, torch.float64))
        g = check_first_order(f, inputs, TOLERANCE[torch.float64])
        if name not in FIRST_ORDER:
            check_second_order(f, inputs, g, TOLERANCE[torch.float64])

    try:
        check()
    except Exception:  # a wrong number, or a shape that does not fit any more
        return False
    return True


# What has no samples is broken by the judge's own tests.
BROKEN = [name for name in PRIMITIVES if name in SAMPLES and name not in ZERO]


@pytest.mark.parametrize("name", BROKEN)
def test_every_mutant_is_killed(name: str):
    op = PRIMITIVES[name]
    for what, broken in mutants(op):
        with broken:
            assert not survives(name), f"{name}: {what}"
        killed.append(f"{name}: {what}")


@pytest.mark.parametrize("name", ["add", "mul", "where", "maximum", "expand", "matmul"])
def test_a_dropped_broadcasting_sum_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    def first_only(g: Any, shape: torch.Size, op: object = None) -> Any:
        extra = len(g.shape) - len(shape)
        for _ in range(extra):
            g = g[0]
        for d, n in enumerate(shape):
            g = g.narrow(d, 0, n)
        return g

    monkeypatch.setattr(reverse, "unbroadcast", first_only)
    assert not survives(name)
    killed.append(f"{name}: dropped broadcasting sum")


def test_the_count(capsys: pytest.CaptureFixture[str]):
    with capsys.disabled():
        print(f"\n{len(killed)} mutants of {len(BROKEN)} primitives killed")
    assert {mutant.split(":")[0] for mutant in killed} >= set(BROKEN)
