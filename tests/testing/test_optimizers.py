"""``assert_optimizer_agrees``: ours pass, each kind of mistake is found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp

from torchopt_course import ElementwiseOptimizer
from torchopt_course.testing import OptimizerError, assert_optimizer_agrees

from ..helpers import ours, theirs
from ..optimizers.test_write_your_own import Lion
from ..twins import VARIANTS

ONE_OF_EACH = [VARIANTS[i] for i in (1, 4, 5, 7, 12, 15, 18)]


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH, ids=str)
def test_ours_agree_with_torchs(name: str, options: dict[str, Any]) -> None:
    assert_optimizer_agrees(
        lambda params: ours(name)(params, **options),
        reference=lambda params: theirs(name)(params, **options, foreach=False),
    )


class PlainLion(torch.optim.Optimizer):
    """As in the paper, Algorithm 2, one tensor at a time."""

    def __init__(self, params: Any, flip: float = 1.0) -> None:
        super().__init__(params, {"lr": 1e-4, "flip": flip})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            m = self.state[p].setdefault("m", torch.zeros_like(p))
            p.sub_(self.param_groups[0]["flip"] * 1e-4 * torch.sign(0.9 * m + 0.1 * p.grad))
            m.mul_(0.99).add_(0.01 * p.grad)


def test_your_own_against_the_paper() -> None:
    assert_optimizer_agrees(Lion, reference=PlainLion)
    with pytest.raises(OptimizerError, match=r"Lion, float64 on cpu: your optimizer and the reference differ "
                       r"first in step 1, in parameter 0: 1\.54.* and 1\.54"):  # fmt: skip
        assert_optimizer_agrees(Lion, reference=lambda params: PlainLion(params, flip=-1.0))


class Descent(ElementwiseOptimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


class WritesToTheGradient(Descent):
    def step(self, closure: Any = None) -> Any:
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad += 0.1 * p.detach()
        return super().step(closure)


class DividesByZero(Descent):
    states = ("square",)

    @staticmethod
    def rule(p: Any, g: Any, square: Any, lr: Any) -> Any:
        square = square + g * g
        return p - lr * g / xp.sqrt(square), square


class NeedsTorch(Descent):
    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * xp.special.erf(g)


class IgnoresItsRate(Descent):
    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": 0.1}


class ForgetsAtCheckpoints(Descent):
    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        self.param_groups[0]["lr"] = 0.1 / self.calls
        return super().step(closure)


class ClipsAllTogether(Descent):
    def step(self, closure: Any = None) -> Any:
        params = [p for p in self.param_groups[0]["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        norm = float(torch.nn.utils.get_total_norm([g for g in grads if g is not None]))
        for p, g in zip(params, grads, strict=True):
            p.grad = g / (norm + 1e-6) if g is not None else None
        result = super().step(closure)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        return result


class OnlyDescends(Descent):
    def step(self, closure: Any = None) -> Any:
        wish, self.param_groups[0]["maximize"] = self.param_groups[0]["maximize"], False
        result = super().step(closure)
        self.param_groups[0]["maximize"] = wish
        return result


class LosesItsStateInCopies(Descent):
    states = ("average",)

    @staticmethod
    def rule(p: Any, g: Any, average: Any, lr: Any) -> Any:
        average = 0.9 * average + g
        return p - lr * average, average

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)([torch.nn.Parameter(p.detach().clone()) for p in self.param_groups[0]["params"]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (WritesToTheGradient, "step() has changed the gradient of parameter 0, which others may still need"),
        (DividesByZero, "gradients of zero make parameter 0 inf or NaN in step 1"),
        (NeedsTorch, "NeedsTorch.rule calls torch.special.erf(), which is not on the list for kernels"),
        (IgnoresItsRate, 'group["lr"] was halved after step 1, and step 2 is what it was'),
        (ForgetsAtCheckpoints, "after a checkpoint and without differ first in step 6, in parameter 0"),
        (ClipsAllTogether, "a parameter among others and with steps without a gradient and the same one"),
        (OnlyDescends, "maximize=True with -g and descent on g differ first in step 1, in parameter 0"),
        (LosesItsStateInCopies, "a deep copy and itself differ first in step 6, in parameter 0"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(OptimizerError) as error:
        assert_optimizer_agrees(make)
    assert str(error.value).startswith(f"{make.__name__}, float64 on cpu: ")
    assert message in str(error.value)


def test_a_rule_that_only_torch_can_compute_is_checked_all_the_same() -> None:
    assert_optimizer_agrees(NeedsTorch, fused=False)


def test_an_engine_with_another_formula_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_foreach_sign_", torch._foreach_abs_)
    with pytest.raises(
        OptimizerError, match=r"foreach=True and the rule in torch operations differ first in step 1"
    ):
        assert_optimizer_agrees(Lion)


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="steps must be at least 4, not 3"):
        assert_optimizer_agrees(Lion, steps=3)
    with pytest.raises(TypeError, match=r"make\(\) must give an ElementwiseOptimizer, not PlainLion"):
        assert_optimizer_agrees(PlainLion)
