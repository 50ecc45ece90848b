"""The step that is one native call: the same numbers as the usual way, and never for what has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import torchopt_course as oc
from torchopt_course.engines.prepared import PreparedStep

from ..helpers import NAMES, ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix", "large", "scalar", "empty"]


def two_groups(params: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:2], "lr": 0.03}, {"params": params[2:]}]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_one_call_and_equal_torchs(name: str, taken: list[bool]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizers = ours(name)(two_groups(mine), lr=0.01), theirs(name)(two_groups(reference), lr=0.01)
    for step in range(8):
        set_gradients(step, mine, reference)
        if step % 3 == 1:  # parameters of different ages in one call
            mine[1].grad = reference[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    assert taken == [True] * 7
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", [{"foreach": True}, {"fused": False}], ids=["foreach", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_torchs_operations_follow_the_one_call(name: str, engine: dict[str, bool], taken: list[bool]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizers = (
        ours(name)(two_groups(mine), lr=0.01, **engine),
        theirs(name)(two_groups(reference), lr=0.01, foreach=False),
    )
    for step in range(8):
        set_gradients(step, mine, reference)
        if step == 5:
            mine[1].grad = reference[1].grad = None
        if step in (3, 4):  # a schedule
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] *= 0.5
        for optimizer in optimizers:
            optimizer.step()
    # Parameters of different ages go the usual way.
    counts_steps = name not in ("SGD", "Momentum")
    assert taken == [True] * 5 + [not counts_steps] * 2
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)


EDITS: dict[str, tuple[dict[str, Any], bool]] = {
    # Numbers are read in each step; a number that chooses other terms, or another type, is a change.
    "lr": ({"lr": 0.5}, True),
    "betas": ({"betas": (0.5, 0.75)}, True),
    "weight decay from 0": ({"weight_decay": 0.1}, False),
    "lr is whole": ({"lr": 1}, False),
    "lr is a tensor": ({"lr": torch.tensor(0.25)}, False),
    "maximize": ({"maximize": True}, False),
    "amsgrad": ({"amsgrad": True}, False),
    "fused": ({"fused": False}, False),
    "betas is a list": ({"betas": [0.5, 0.75]}, False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_option_changes(edit: str, taken: list[bool]) -> None:
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizers = oc.Adam(two_groups(mine)), torch.optim.Adam(two_groups(reference), foreach=False)
    changed, is_read = EDITS[edit]
    for step in range(6):
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            if step == 3:
                optimizer.param_groups[1].update(changed)
            if edit == "amsgrad" and step == 3 and type(optimizer) is torch.optim.Adam:
                for param in optimizer.param_groups[1]["params"]:  # torch does not make it
                    optimizer.state[param]["max_exp_avg_sq"] = torch.zeros_like(param)
            optimizer.step()
    assert taken[2] == is_read
    # The step after is prepared for the new options, if that can be.
    assert taken[-1] == (edit not in ("lr is a tensor", "betas is a list"))
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momenta", [(0.0, 0.5, 0.0), (0.5, 0.0, 0.5)], ids=str)
@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
def test_an_option_keeps_a_state_or_not(name: str, momenta: tuple[float, ...], taken: list[bool]) -> None:
    """Of momentum 0 there is no buffer, or one that rests."""
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizers = [
        make(name)(two_groups(params), lr=0.1) for make, params in ((ours, mine), (theirs, reference))
    ]
    for step in range(9):
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            optimizer.param_groups[1]["momentum"] = momenta[step // 3]
            if type(optimizer) is torch.optim.RMSprop and momenta[step // 3]:
                for param in reference[2:]:  # torch makes it in the first step alone
                    if optimizer.state[param]:
                        optimizer.state[param].setdefault("momentum_buffer", torch.zeros_like(param))
            optimizer.step()
    assert taken.count(True) >= 3
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)


def test_nothing_is_done_if_the_last_of_the_groups_has_changed(taken: list[bool]) -> None:
    """Otherwise the groups before would be stepped twice."""
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizers = oc.Adam(two_groups(mine)), torch.optim.Adam(two_groups(reference))
    for step in range(5):
        set_gradients(step, mine, reference)
        if step == 3:
            for params in (mine, reference):
                params[-2].data = params[-2].detach().to(torch.float32)
                params[-2].grad = params[-2].grad.float()  # type: ignore[union-attr]
            for optimizer in optimizers:
                del optimizer.state[optimizer.param_groups[1]["params"][-2]]
        for optimizer in optimizers:
            optimizer.step()
    assert taken == [True, True, False, True]
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin)


class Warm(oc.ElementwiseOptimizer):
    """Coefficients with a choice that depends on the step."""

    def __init__(self, params: Any, lr: float = 0.1, factor: Any = 2) -> None:
        super().__init__(params, {"lr": lr, "factor": factor})

    @staticmethod
    def coefficients(step: float, lr: float, factor: Any) -> dict[str, Any]:
        return {"lr": lr if step > 4 else lr * step / 4, "factor": factor}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any, factor: Any) -> Any:
        return p - factor**2 * lr * g


def test_a_choice_of_the_step(taken: list[bool]) -> None:
    params = parameters(["vector"], torch.float64)
    expected = params[0].detach().clone()
    optimizer = Warm(params)
    for step in range(1, 9):
        params[0].grad = torch.full_like(params[0], float(step))
        expected -= 4 * min(step / 4, 1) * 0.1 * step
        optimizer.step()
    torch.testing.assert_close(params[0].detach(), expected)
    assert taken.count(False) == 1, "once, when the choice comes out otherwise"


class Failing(Warm):
    """Python raises where C would go on with infinity."""

    @staticmethod
    def coefficients(step: float, lr: float, factor: Any) -> dict[str, Any]:
        return {"lr": lr / (step - 4), "factor": factor}


def test_an_error_of_the_coefficients_is_pythons(taken: list[bool]) -> None:
    params = parameters(["vector"], torch.float64)
    optimizer = Failing(params)
    for step in range(1, 5):
        params[0].grad = torch.ones_like(params[0])
        before = params[0].detach().clone()
        if step < 4:
            optimizer.step()
    with pytest.raises(ZeroDivisionError, match=r"Failing\.coefficients"):
        optimizer.step()
    assert torch.equal(params[0].detach(), before)


def _swap_rule(optimizer: Any) -> None:
    type(optimizer).rule = staticmethod(lambda p, g, lr, factor: p + lr * g)


def _swap_coefficients(optimizer: Any) -> None:
    type(optimizer).coefficients = staticmethod(lambda lr, factor: {"lr": -lr, "factor": 1})


@pytest.mark.parametrize("swap", [_swap_rule, _swap_coefficients])
def test_another_rule(swap: Callable[[Any], None]) -> None:
    class Own(Warm):
        states: ClassVar = ()

    params = parameters(["vector"], torch.float64)
    optimizer = Own(params)
    for step in range(4):
        before = params[0].detach().clone()
        params[0].grad = torch.ones_like(params[0])
        if step == 3:
            swap(optimizer)
        optimizer.step()
    assert (params[0] > before).all()


@pytest.mark.parametrize("mode", ["hook", "scaler", "function mode"])
def test_what_listens_is_heard(mode: str) -> None:
    params = parameters(["vector"], torch.float64)
    optimizer = oc.SGD(params, lr=0.1, fused=mode == "scaler")
    heard = []
    for step in range(4):
        set_gradients(step, params)
        before = params[0].detach().clone()
        if step == 3 and mode == "hook":
            optimizer.register_step_post_hook(lambda *_: heard.append("hook"))
        if step == 3 and mode == "scaler":
            optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
        optimizer.step()
    assert heard == (["hook"] if mode == "hook" else [])
    assert torch.equal(params[0].detach(), before) == (mode == "scaler")


class Rounding(Warm):
    """Coefficients that only Python can compute."""

    @staticmethod
    def coefficients(lr: float, factor: Any) -> dict[str, Any]:
        return {"lr": round(lr, 3), "factor": factor}


@pytest.mark.parametrize("why", ["coefficients", "memory"])
def test_what_is_vain_is_seldom_tried(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To prepare a step costs more than a small step: not each time, where it never comes to that."""
    made = [0]
    begin = PreparedStep.__init__

    def counted(self: PreparedStep, *arguments: Any) -> None:
        made[0] += 1
        begin(self, *arguments)

    monkeypatch.setattr(PreparedStep, "__init__", counted)
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    make = Rounding if why == "coefficients" else Warm
    optimizer, other = make(mine, lr=0.1, factor=1), torch.optim.SGD(reference, lr=0.1)
    for step in range(100):
        set_gradients(step, mine, reference)
        if why == "memory":
            mine[0].data = mine[0].detach().clone()
        for group in other.param_groups:
            group["lr"] = 0.1 if why == "coefficients" or step >= 4 else 0.1 * (step + 1) / 4
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)
    assert made[0] <= 12
