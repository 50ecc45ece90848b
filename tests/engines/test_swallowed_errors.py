"""A rule that takes every error for its own: it is refused nothing, and means what it means to torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

from .reducing import optimizer_of

Rule = Callable[..., Any]


def bare(p: Any, g: Any, lr: Any) -> Any:
    try:
        return p - lr * xp.sort(g)[0]
    except:  # noqa: E722
        return p - lr * g


def of_python(p: Any, g: Any, lr: Any) -> Any:
    try:
        size = math.sqrt(g)
    except (TypeError, ValueError):
        size = 100.0
    return p - lr * size * g


def of_a_coefficient(p: Any, g: Any, lr: Any) -> Any:
    try:
        lr = 3 * lr if lr > 0.1 else lr
    except BaseException:
        lr = 100 * lr
    return p - lr * g


def afterwards(p: Any, g: Any, lr: Any) -> Any:
    try:
        g = g[:] + 0
    finally:
        return p - lr * g  # noqa: B012


@pytest.mark.parametrize("rule", [bare, of_python, of_a_coefficient, afterwards])
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"foreach": True}], ids=str)
def test_the_step_is_torchs(rule: Rule, options: dict[str, Any]) -> None:
    grad = torch.tensor([4.0, 1.0, -2.0])
    param = Parameter(torch.ones(3))
    param.grad = grad
    optimizer = optimizer_of(rule, [param], **options)
    optimizer.step()
    torch.testing.assert_close(param.detach(), rule(torch.ones(3), grad, 0.25))
    assert "User.rule goes on after an error: it " in optimizer.engine_report()


def test_a_number_of_all_tensors_cannot_go_on() -> None:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        g = g / xp.norm(g, over="all")
        return bare(p, g, lr)

    with pytest.raises(TypeError, match=r"over='all', but goes on after an error: it calls torch\.sort\(\)"):
        optimizer_of(rule, [Parameter(torch.ones(3))])


def test_what_is_printed_says_that_there_are_no_numbers_yet(capsys: pytest.CaptureFixture[str]) -> None:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        print(f"{g=}")
        return p - lr * g

    optimizer_of(rule, [Parameter(torch.ones(3))])
    assert capsys.readouterr().out == "g=<g, while the rule is read: there are no numbers yet>\n"
