"""Would these tests notice a wrong derivative? Break every rule of the table in turn and see.

A mutant has the sign of one rule changed, or its result doubled; or the sum that undoes broadcasting replaced
by a choice. It is killed if one of a few samples of its primitive fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from torchopt_course.autograd import PRIMITIVES, Primitive, reverse

from .agreement import TOLERANCE, check_first_order, check_second_order
from .samples import FIRST_ORDER, SAMPLES, Draw

# Rules that are zero whatever one does to them.
ZERO = {"sign", "floor", "ceil", "trunc", "round"}

killed: list[str] = []


def negated(g: Any) -> Any:
    return -g


def doubled(g: Any) -> Any:
    return 2 * g


@contextmanager
def replaced(op: Primitive, attribute: str, value: Any) -> Iterator[None]:
    original = getattr(op, attribute)
    setattr(op, attribute, value)
    try:
        yield
    finally:
        setattr(op, attribute, original)


def mutants(op: Primitive) -> Iterator[tuple[str, Any]]:
    for change in (negated, doubled):
        for arg, (rule, slots, wants) in op.rules.items():
            yield f"{change.__name__} VJP of {arg}", mutated_rule(op, arg, (rule, slots, wants), change)
        for arg in op.kernels:
            yield (
                f"{change.__name__} kernel of {arg}",
                mutated_rule(op, arg, op.kernels[arg], change, kernel=True),
            )
        if callable(op.jvp):
            yield (
                f"{change.__name__} JVP",
                replaced(op, "push", lambda *a, op=op, c=change: c(Primitive.push(op, *a))),
            )


@contextmanager
def mutated_rule(
    op: Primitive, arg: str, entry: Any, change: Callable, kernel: bool = False
) -> Iterator[None]:
    """The rule with its result changed; the fast kernel goes, so that the rule is what runs (and v.v.)."""
    rule, slots, wants = entry

    def wrong(*args: Any) -> Any:
        result = rule(*args)
        if isinstance(result, list | tuple):
            return [None if r is None else change(r) for r in result]
        return change(result)

    rules, kernels = dict(op.rules), dict(op.kernels)
    if kernel:
        op.kernels[arg] = (wrong, slots, wants)
    else:
        op.rules[arg] = (wrong, slots, wants)
        op.kernels.pop(arg, None)
    pullers, joint = op.by_position, op._joint_puller
    op.by_position = [op._puller(p) if p in op.rules else None for p in op.parameters]
    op._joint_puller = op._puller("*") if op.joint else None
    op._kept.clear()  # what is saved depends on which rules there are
    try:
        yield
    finally:
        op.rules, op.kernels, op.by_position, op._joint_puller = rules, kernels, pullers, joint
        op._kept.clear()


def survives(name: str, examples: int = 40) -> bool:
    @settings(max_examples=examples, phases=[Phase.generate])
    @given(st.data())
    def check(data: st.DataObject) -> None:
        f, inputs = SAMPLES[name](Draw(data, torch.float64))
        g = check_first_order(f, inputs, TOLERANCE[torch.float64])
        if name not in FIRST_ORDER:
            check_second_order(f, inputs, g, TOLERANCE[torch.float64])

    try:
        check()
    except Exception:  # a wrong number, or a shape that does not fit any more
        return False
    return True


@pytest.mark.parametrize("name", [name for name in PRIMITIVES if name not in ZERO])
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
        print(f"\n{len(killed)} mutants of {len(PRIMITIVES)} primitives killed")
    assert len({mutant.split(":")[0] for mutant in killed}) >= len(PRIMITIVES) - len(ZERO)
