"""Mistakes in a rule for whole tensors are named, with class and parameter, and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import TensorOptimizer

from .shampoo import Shampoo, parameters


class Given(TensorOptimizer):
    """A rule and a first state from outside."""

    states = ("m",)
    given: Any = None
    first: Any = None

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.1, **options})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Any:
        return type(self).first(param)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return Given.given(p, g, m)


def refuses(
    monkeypatch: pytest.MonkeyPatch,
    first: Any,
    given: Any,
    error: type[Exception],
    match: str,
    stacked: bool = False,
) -> None:
    """A step raises, names the second parameter, and changes nothing."""
    monkeypatch.setattr(Given, "first", staticmethod(first))
    monkeypatch.setattr(Given, "given", staticmethod(given))
    monkeypatch.setattr(Given, "stacked", stacked)
    params = [Parameter(torch.ones(2)), Parameter(torch.ones(3))]
    optimizer = Given([("a", params[0]), ("b", params[1])])
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(error, match=match) as raised:
        optimizer.step()
    assert "parameter 1 of group 0 (b)" in str(raised.value)
    assert all(torch.equal(param, torch.ones_like(param)) for param in params)
    assert all(torch.equal(param.grad, torch.ones_like(param)) for param in params)
    assert not optimizer.state


def odd(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda param: make(param) if len(param) == 3 else torch.zeros(2)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda p: 0.0,
            TypeError,
            "'m' that Given.initial_state made.*is a float, 0.0, expected a tensor, or None",
        ),
        (lambda p: torch.zeros(3, device="meta"), RuntimeError, "is on meta, expected cpu"),
        (lambda p: p, RuntimeError, "requires a gradient"),
        (lambda p: p.detach(), RuntimeError, "is the parameter itself"),
        (lambda p: torch.zeros(()).expand(3), RuntimeError, "several elements in one memory location"),
        (lambda p: torch.zeros(3).to_sparse(), RuntimeError, "layout torch.sparse_coo"),
        (lambda p: p @ torch.ones(7), RuntimeError, r"Given.initial_state\('m'\)"),
    ],
)
def test_bad_initial_states(
    monkeypatch: pytest.MonkeyPatch, make: Any, error: type[Exception], match: str
) -> None:
    refuses(monkeypatch, odd(make), lambda p, g, m: (p, m), error, match)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    ("result", "error", "match"),
    [
        (lambda p, m: (p @ torch.ones(7), m), RuntimeError, "Given.rule"),
        (lambda p, m: (p.sum(), m), TypeError, "new 'p' of shape"),
        (lambda p, m: (p, None), TypeError, "returned None for 'm'"),
        (lambda p, m: (p, m.to(torch.complex64)), TypeError, "'m' of torch.complex64, which cannot become"),
        (lambda p, m: p, TypeError, "returned one value"),
        (lambda p, m: (p, "m"), TypeError, "a str, 'm' for 'm'"),
    ],
)
def test_bad_results(
    monkeypatch: pytest.MonkeyPatch, result: Any, error: type[Exception], match: str, stacked: bool
) -> None:
    def given(p: Any, g: Any, m: Any) -> Any:
        g.zero_()  # what it gets is its own
        return result(p, m) if p.shape[-1] == 3 else (p.mul_(0), m.add_(1))

    refuses(monkeypatch, lambda p: torch.zeros(len(p)), given, error, match, stacked)


def test_none_must_stay_none(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(
        monkeypatch, odd(lambda p: None), lambda p, g, m: (p, 0 * g), TypeError, "for 'm', which was None"
    )


def test_what_the_rule_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Given cannot take parameter 1 of group 0: it is complex"):
        Given([Parameter(torch.ones(2)), Parameter(torch.ones(2, dtype=torch.complex64))])
    for engine in ("fused", "foreach"):
        with pytest.raises(RuntimeError, match=f"Given has no {engine} engine"):
            Given([Parameter(torch.ones(2))], **{engine: True})
    param = Parameter(torch.ones(2))
    param.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match=r"does not support sparse gradients.*parameter 0 of group 0"):
        Given([param]).step()


def test_add_param_group_takes_back_what_it_refuses() -> None:
    optimizer = Shampoo(parameters())
    with pytest.raises(ValueError, match="parameter 0 of group 1: it is complex"):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 1


def test_stacked_results_must_be_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(
        monkeypatch,
        lambda p: torch.zeros(len(p)),
        lambda p, g, m: (p[0] if p.shape[-1] == 3 else p, m),
        TypeError,
        "expected 1 of them along the first dimension",
        stacked=True,
    )
