"""Every mistake in a rule of yours, or in its first states, is named: what was found, what was expected."""

# ruff: noqa: E501  the tables have a mistake in each line

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch as xp

import torchopt_course as oc

from .mine import ONE_NUMBER, parameter, with_changes


def writes_to(name: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(f"def rule(p, g, m, lr):\n    {name} += lr * g\n    return p - lr * g, m", namespace)
    return namespace["rule"]


RULES: dict[str, tuple[Any, str]] = {
    "if": (lambda p, g, m, lr: (p if g > 0 else g, m), f"decides by the values of a tensor .if, .*{ONE_NUMBER}"),
    "and": (lambda p, g, m, lr: (p, g > 0 and m), "decides by the values of a tensor"),
    "max": (lambda p, g, m, lr: (max(p, g), m), "decides by the values of a tensor"),
    "for": (lambda p, g, m, lr: (sum(x for x in g), m), f"goes through the elements of a tensor: {ONE_NUMBER}"),
    "float": (lambda p, g, m, lr: (p * float(g), m), f"makes a Python number of a tensor .*{ONE_NUMBER}"),
    "item": (lambda p, g, m, lr: (p * g.item(), m), f"calls torch.Tensor.item\\(\\): {ONE_NUMBER}"),
    "math": (lambda p, g, m, lr: (p - math.sqrt(g), m), f".* a function of math\\): {ONE_NUMBER} \\(xp.sqrt, not"),
    "numpy": (lambda p, g, m, lr: (p - np.sqrt(g), m), f"calls numpy's sqrt\\(\\): {ONE_NUMBER}"),
    "p +=": (writes_to("p"), "writes into its argument p, with \\+= or the like.*write x = x \\+ y"),
    "g +=": (writes_to("g"), "writes into its argument g"),
    "m +=": (writes_to("m"), "writes into its argument m"),
    "add_": (lambda p, g, m, lr: (p.add_(g), m), "writes into a tensor, with torch.Tensor.add_"),
    "out=": (lambda p, g, m, lr: (xp.add(p, g, out=p), m), "writes into a tensor, with torch.add"),
    "an element": (lambda p, g, m, lr: (g.__setitem__(0, 1.0), m), "writes into g"),
    "a state forgotten": (lambda p, g, m, lr: p - lr * g, "returned one value, expected \\(p, m\\), one new value"),
    "too few": (lambda p, g, m, lr: (p,), "returned 1 values, expected \\(p, m\\)"),
    "too many": (lambda p, g, m, lr: (p, m, m), "returned 3 values, expected \\(p, m\\)"),
    "nothing": (lambda p, g, m, lr: None, "returned None, expected \\(p, m\\)"),
    "no state": (lambda p, g, m, lr: (p, None), "returned None for 'm', expected \\(p, m\\)"),
    "a string": (lambda p, g, m, lr: (p, "m"), "returned a str, 'm' for 'm'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", RULES)
def test_a_rule(mistake: str) -> None:
    rule, message = RULES[mistake]
    for fused in (None, False):
        with pytest.raises(TypeError, match=rf"Mine\.rule {message}"):
            with_changes(rule=rule)([parameter()], fused=fused)


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (lambda p, g, m, lr: (p - lr * g.nrom(), m), AttributeError, "has no attribute 'nrom'"),
        (lambda p, g, m, lr: (p - lr * xp.sqr(g), m), AttributeError, "has no attribute 'sqr'"),
        (lambda p, g, m, lr: (p - lr * sqrt(g), m), NameError, "name 'sqrt' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    ],
    ids=["method", "function of xp", "global"],
)
def test_a_name(rule: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"Mine\.rule: .*{message}"):
        with_changes(rule=rule)([parameter()])


WHOLE: dict[str, tuple[Any, str]] = {
    "a scalar for a state": (lambda p, g, m, lr: (p, g.std()), "returned a new 'm' of shape () on cpu, expected sh"),
    "a row": (lambda p, g, m, lr: (p, xp.cat([g, g])), "returned a new 'm' of shape (6,) on cpu, expected shape (3,)"),
    "a number of rows": (lambda p, g, m, lr: (p, g[:1]), "returned a new 'm' of shape (1,) on cpu"),
    "written to": (lambda p, g, m, lr: (p / p.std(), m.add_(g)), "writes into its argument 'm'"),
    "a gradient": (lambda p, g, m, lr: (p - g.add_(1) if g.ndim else p, m), "writes into its argument 'g'"),
    "failing": (lambda p, g, m, lr: (p - g @ g.mT, m), "Mine.rule: tensor.mT is only supported on matrices"),
    "a number": (lambda p, g, m, lr: (xp.maximum(p, 0.0), m), "Mine.rule: maximum(): argument 'other'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WHOLE)
def test_a_rule_for_whole_tensors(mistake: str) -> None:
    """Shapes are known in the first step; it changes nothing."""
    rule, message = WHOLE[mistake]
    param = parameter()
    optimizer = with_changes(rule=rule)([param])
    with pytest.raises((TypeError, RuntimeError)) as error:
        optimizer.step()
    assert message in str(error.value)
    assert torch.equal(param.detach(), torch.ones(3))
    assert param.grad is not None
    assert torch.equal(param.grad, torch.ones(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.zeros(()), "has shape () on cpu, expected (3,) on cpu as the parameter"),
        (lambda p: torch.zeros(1, 3), "has shape (1, 3) on cpu, expected (3,)"),
        (lambda p: torch.zeros(3, dtype=torch.int64), "has dtype torch.int64, expected floating point"),
        (lambda p: torch.zeros(3, device="meta"), "has shape (3,) on meta, expected (3,) on cpu"),
        (lambda p: p.detach(), "is the parameter itself, expected memory of its own: clone() it"),
        (lambda p: p.grad, "is its gradient itself, expected memory of its own: clone() it"),
        (lambda p: 0.0, "is a float, 0.0, expected a tensor like the parameter"),
        (lambda p: None, "is None, expected a tensor like the parameter"),
    ],
)
def test_a_first_state(make: Any, message: str) -> None:
    """Of another shape it would be spread over the parameter; of whole numbers, cut off."""
    param = parameter()
    optimizer = with_changes(initial_state=lambda self, name, param, group: make(param))([param])
    with pytest.raises((TypeError, RuntimeError)) as error:
        optimizer.step()
    assert f"the state 'm' that Mine.initial_state made {message}" in str(error.value)
    assert torch.equal(param.detach(), torch.ones(3))
    assert not optimizer.state[param]


@pytest.mark.parametrize("engine", [{}, {"fused": False}, {"foreach": True}], ids=str)
def test_a_first_state_for_several_parameters(engine: dict[str, bool]) -> None:
    same = torch.zeros(3)
    optimizer = with_changes(initial_state=lambda self, name, param, group: same)(
        [parameter(), parameter()], **engine
    )
    with pytest.raises(
        RuntimeError, match=r"Mine\.initial_state made one tensor .* of parameter 1 of group 0"
    ):
        optimizer.step()
    assert not optimizer.state


class Dividing(oc.ElementwiseOptimizer):
    """Divides by nothing: in its coefficients, in its rule, or where torch runs it."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.5, "power": 0.0, "eps": 0.0, "where": "nowhere", **options})

    @staticmethod
    def coefficients(lr: Any, power: Any, eps: Any, where: Any) -> Any:
        return {
            "lr": lr / eps if where == "coefficients" else lr,
            "scale": 10.0**power,
            "eps": eps,
            "by_torch": where == "torch",
            "in_rule": where == "rule",
        }

    @staticmethod
    def rule(p: Any, g: Any, lr: Any, scale: Any, eps: Any, by_torch: Any, in_rule: Any) -> Any:
        if in_rule:
            return p - lr / eps * g
        return p - torch.erf(g) * (lr / eps if by_torch else scale)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"where": "coefficients"},
            ZeroDivisionError,
            r"Dividing\.coefficients\(.*eps=0\.0.*`\"lr\": lr / eps ",
        ),
        (
            {"power": 400.0},
            OverflowError,
            r"Dividing\.coefficients\(.*power=400\.0.*`\"scale\": 10\.0\*\*power`",
        ),
        ({"where": "rule"}, ZeroDivisionError, r"Dividing\.rule\(lr=0\.5, .*eps=0\.0.*div\(0\.5, 0\.0\)"),
        (
            {"where": "torch"},
            ZeroDivisionError,
            r"Dividing\.rule\(lr=0\.5, .*eps=0\.0.*`return p - torch\.erf",
        ),
    ],
    ids=["coefficients", "overflow", "rule", "torch"],
)
def test_an_error_of_arithmetic_names_class_values_and_line(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = Dividing([param], **options)
    param.grad = torch.ones(2)
    with pytest.raises(kind, match=words) as found:
        optimizer.step()
    assert type(found.value) is kind
    assert torch.equal(param, torch.ones(2))
