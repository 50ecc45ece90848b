"""A step that fails has changed nothing: no parameter, no state, no gradient, not even the list of states."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch as xp
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

import torchopt_course as oc

from ..helpers import ENGINES, NAMES, every_engine, ours, parameters, set_gradients

KINDS = ["vector", "matrix", "scalar", "channels_last"]


class Changes:
    """Everything that a step may change, as it was."""

    def __init__(self, params: list[Any], optimizer: torch.optim.Optimizer) -> None:
        self.params, self.optimizer = params, optimizer
        self.before = self._all()

    def _all(self) -> list[Any]:
        tensors = [(param.detach(), param.grad) for param in self.params]
        return copy.deepcopy([tensors, self.optimizer.state_dict()["state"]])

    def assert_none(self) -> None:
        torch.testing.assert_close(self._all(), self.before, rtol=0, atol=0, equal_nan=True)


class Own(oc.ElementwiseOptimizer):
    """A user's optimizer whose rule or coefficients go wrong for one parameter of several."""

    states = ("m",)

    def __init__(self, params: Any, bad: str = "", **options: Any) -> None:
        super().__init__(params, dict(lr=0.1, bad=bad, **options))

    @staticmethod
    def coefficients(step: float, lr: float, bad: str) -> dict[str, Any]:
        if bad == "coefficients" and step > 3:
            raise ArithmeticError("coefficients of an old parameter")
        return {"lr": lr / step, **{kind: bad == kind for kind in ("shape", "raises", "numbers")}}

    @staticmethod
    def rule(
        p: Tensor, g: Tensor, m: Tensor, lr: float, shape: bool, raises: bool, numbers: bool
    ) -> tuple[Tensor, Tensor]:
        if shape:
            return p - lr * (g @ g.mT @ g), m
        if raises and g.dim() == 0:
            raise ArithmeticError("a scalar")
        if numbers and not xp.isfinite(g).all():
            raise ArithmeticError("not finite")
        m = 0.9 * m + g
        return p - lr * m, m


@pytest.mark.parametrize("when", ["first step", "later"])
@pytest.mark.parametrize("bad", ["shape", "raises", "numbers", "coefficients"])
@pytest.mark.parametrize(
    "options", [{}, ENGINES["eager"], ENGINES["foreach"]], ids=["default", "eager", "foreach"]
)
def test_own_formula_fails_for_one_parameter(options: dict[str, bool], bad: str, when: str) -> None:
    params = parameters(["matrix", "vector", "scalar"])
    params[0] = Parameter(torch.ones(3, 3))
    optimizer = Own([{"params": params[:1]}, {"params": params[1:]}], **options)
    if when == "later" or bad == "coefficients":
        for step in range(3):
            # The last parameter is as old as the others but for one step.
            set_gradients(step, params[:2] if step == 0 else params)
            optimizer.step()
    set_gradients(3, params)
    params[2].grad.fill_(float("nan"))
    for group in optimizer.param_groups:
        group["bad"] = bad
    changes = Changes(params, optimizer)
    with pytest.raises(Exception, match=r"old parameter|a scalar|not finite|mT|matri"):
        optimizer.step()
    changes.assert_none()
    for group in optimizer.param_groups:
        group["bad"] = ""
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == changes.before[1].get(0, {"step": 0})["step"] + 1


def expanded() -> Parameter:
    return Parameter(torch.ones(1).expand(3))


def in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return torch.ones(3)


UNFIT: dict[str, Any] = {
    "expanded": expanded,
    "integer": lambda: torch.ones(3, dtype=torch.int32),
    "bool": lambda: torch.ones(3, dtype=torch.bool),
    "float8": lambda: Parameter(torch.ones(3).to(torch.float8_e4m3fn)),
    "inference": in_inference_mode,
    "no memory": lambda: Parameter(torch.ones(3)),
}


@pytest.mark.parametrize("kind", UNFIT)
@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_that_cannot_be_stepped(name: str, engine: dict[str, bool], kind: str) -> None:
    """torch raises a RuntimeError too, but on the way. What comes before and after it is left alone."""
    before, after = parameters(["vector", "matrix"])
    unfit = UNFIT[kind]()
    optimizer = ours(name)([before, unfit, after], lr=0.1, **engine)
    set_gradients(0, [before, after])
    optimizer.step()
    set_gradients(1, [before, after])
    unfit.grad = torch.ones(3).to(unfit.dtype)
    values = [before.detach().clone(), after.detach().clone()]
    states = copy.deepcopy([optimizer.state.get(before), optimizer.state.get(after)])
    if kind == "no memory":
        unfit.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0|floating point dtype"):
        optimizer.step()
    torch.testing.assert_close([before.detach(), after.detach()], values, rtol=0, atol=0)
    torch.testing.assert_close(
        [optimizer.state.get(before), optimizer.state.get(after)], states, rtol=0, atol=0
    )
    unfit.grad = None
    optimizer.step()


def test_gradients_are_scaled_again() -> None:
    """GradScaler leaves unscaling to a fused optimizer, which does it before the step, and undoes it."""
    params = parameters(KINDS)
    optimizer = Own(params, fused=None)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    set_gradients(0, params)
    for group in optimizer.param_groups:
        group["bad"] = "raises"
    changes = Changes(params, optimizer)
    with pytest.raises(ArithmeticError):
        optimizer.step()
    changes.assert_none()


class BadState(Own):
    """Its states cannot be made for a matrix."""

    states = ("m", "v")

    def initial_state(self, name: str, param: Tensor, group: Any) -> Tensor:
        if param.dim() == 2 and name == "v":
            raise ArithmeticError("no state for a matrix")
        return super().initial_state(name, param, group)

    @staticmethod
    def rule(
        p: Tensor, g: Tensor, m: Tensor, v: Tensor, lr: float, shape: bool, raises: bool, numbers: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return p - lr * g, m + g, v + g


@every_engine
def test_a_state_cannot_be_made(engine: dict[str, bool]) -> None:
    params = parameters(["vector", "matrix", "scalar"])
    optimizer = BadState(params, **engine)
    set_gradients(0, params)
    changes = Changes(params, optimizer)
    with pytest.raises(ArithmeticError, match="no state for a matrix"):
        optimizer.step()
    changes.assert_none()
    assert not optimizer.state


@pytest.mark.parametrize("engine", ENGINES)
def test_immutable_zeros_fail_before_anything_is_changed(engine: str) -> None:
    params = [Parameter(torch.ones(3)), torch._efficientzerotensor(3)]  # type: ignore[attr-defined]
    optimizer = oc.SGD(params, momentum=0.9, **ENGINES[engine])
    for param in params:
        param.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="parameter 1 of group 0 is an immutable zero"):
        optimizer.step()
    assert torch.equal(params[0], torch.ones(3))
    assert not optimizer.state


class Forbids(TorchDispatchMode):
    """A mode of the user's own that raises at a certain product of the step."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        self.left -= operation is torch.ops.aten.mul.Tensor
        if self.left == 0:
            raise ArithmeticError("no more products")
        return operation(*arguments, **(keywords or {}))


@every_engine
@pytest.mark.parametrize("left", [1, 4, 8])
def test_a_dispatch_mode_raises_in_the_midst(left: int, engine: dict[str, bool]) -> None:
    params = parameters(["vector", "matrix", "scalar"])
    optimizer = oc.Adam(params, **engine)
    for step in range(2):
        set_gradients(step, params)
        optimizer.step()
    changes = Changes(params, optimizer)
    with Forbids(left), pytest.raises(ArithmeticError, match="no more products"):
        optimizer.step()
    changes.assert_none()
