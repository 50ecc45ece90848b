"""``assert_optimizer_agrees``: ours pass, each kind of mistake is found and named."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any
from unittest import SkipTest

import pytest
import torch
import torch as xp

from torchopt_course import ElementwiseOptimizer
from torchopt_course.testing import (
    OptimizerError,
    assert_optimizer_agrees,
    optimizer_checks,
    parametrize_with_checks,
)

from ..helpers import ours, theirs
from ..optimizers.test_write_your_own import Lion
from ..twins import VARIANTS
from . import wrong_options
from .mistakes import MISTAKES
from .wrong_optimizers import Ascends, NormOfAll, Right

# Of each optimizer one; in `make test` those with nothing, one and three states to keep.
ONE_OF_EACH = [
    pytest.param(*VARIANTS[i], marks=[pytest.mark.slow] * (i not in (1, 7, 15)))
    for i in (1, 4, 5, 7, 12, 15, 18)
]


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH, ids=str)
def test_ours_agree_with_torchs(name: str, options: dict[str, Any]) -> None:
    def make(params: Any) -> Any:
        return ours(name)(params, **options)

    def reference(params: Any) -> Any:
        return theirs(name)(params, **options, foreach=False)

    names = ("reference", "engines agree", "engines in half", "checkpoint")
    assert failing(make, *names, reference=reference) == {}


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
    assert failing(Lion, "reference", reference=PlainLion) == {}
    error = failing(Lion, "reference", reference=lambda params: PlainLion(params, flip=-1.0))["reference"]
    assert str(error) == (
        "Lion, float64 on cpu, reference: your optimizer and the reference differ first in step 1, in "
        "parameter 0: 1.54089611 and 1.54109611, 0.0002 apart, 0.00013 relative, 9.01e+11 units in the last "
        "place of float64 (allowed 1.5e-10)"
    )


class Descent(ElementwiseOptimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


class NeedsTorch(Descent):
    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * xp.special.erf(g)


# -- one formula, several engines -----------------------------------------------------------------------


def test_a_rule_that_only_torch_can_compute_is_checked_all_the_same() -> None:
    names = ("fused engine", "engines agree", "engines in half", "cuda kernel", "checkpoint")
    assert failing(NeedsTorch, *names, fused=False) == {}
    message = str(failing(NeedsTorch, *names)["fused engine"])
    assert "NeedsTorch.rule calls torch.special.erf(), which is not on the list for kernels" in message


def test_an_engine_with_another_formula_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_foreach_sign_", torch._foreach_abs_)
    message = str(failing(Lion, "engines agree")["engines agree"])
    assert "foreach=True and the rule in torch operations differ first in step 1" in message


# -- everybody's optimizers -----------------------------------------------------------------------------


@parametrize_with_checks(Right)
def test_a_right_one_passes(check: Any) -> None:
    check()


def test_a_right_one_of_torchs_passes() -> None:
    slow = {"compiled", "no growth", "descends"}

    def make(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, 0.01, momentum=0.9)

    assert failing(make, *{case.name for case in optimizer_checks(make)} - slow) == {}


@pytest.mark.parametrize(
    ("cls", "name"), [*MISTAKES, *wrong_options.MISTAKES], ids=lambda value: getattr(value, "__name__", value)
)
def test_each_mistake_is_found_by_the_check_that_is_there_for_it(cls: Any, name: str) -> None:
    assert name in failing(cls, name)


def failing(make: Any, *names: str, **options: Any) -> dict[str, OptimizerError]:
    """The checks that fail, of those with one of the names."""
    found = {}
    for case in optimizer_checks(make, **options):
        if not names or case.name in names:
            try:
                case()
            except OptimizerError as error:
                found.setdefault(case.name, error)
            except SkipTest:
                continue
    return found


def test_parameters_with_a_number_in_common_are_right_where_it_is_said() -> None:
    names = ("independence", "missing gradients", "groups", "add param group", "order")
    assert failing(NormOfAll, *names, coupled=True) == {}
    assert set(failing(NormOfAll, *names)) == {
        "independence",
        "missing gradients",
        "groups",
        "add param group",
    }


class OnlyMatrices(Right):
    def update(self, p: Any, group: Any) -> None:
        if p.dim() != 2:
            raise IndexError(f"a matrix is needed, not {tuple(p.shape)}")
        super().update(p, group)


def test_shapes() -> None:
    assert failing(OnlyMatrices, "shapes", "checkpoint", "layouts", shapes=[(3, 5), (4, 4)]) == {}
    error = failing(OnlyMatrices, "shapes")["shapes"]
    assert "a parameter of shape (): IndexError: a matrix is needed, not () (and 4 other shapes)" in str(
        error
    )
    assert isinstance(error.__cause__, IndexError)


def test_a_number_that_cannot_have_gaps_is_stepped_once() -> None:
    """Were it one memory in both runs of the check, the second would begin where the first has ended."""
    assert failing(Right, "layouts", shapes=[(), (1,)]) == {}


def test_all_failures_are_reported_what_they_have_in_common_once() -> None:
    class Broken(Right):
        def step(self, closure: Any = None) -> Any:
            raise KeyError("exp_avg")

    with pytest.raises(OptimizerError) as error:
        assert_optimizer_agrees(Broken)
    message = str(error.value)
    assert message.startswith("Broken fails ")
    assert message.count("KeyError: 'exp_avg'") <= 2  # alike in all checks, but for the one of shapes
    assert len(error.value.failures) > 20
    assert all(str(failure).startswith("Broken, ") for failure in error.value.failures)
    assert {type(failure.__cause__) for failure in error.value.failures} == {KeyError}


def test_an_exception_names_the_check() -> None:
    class CannotBeLoaded(Right):
        def load_state_dict(self, state_dict: Any) -> None:
            raise NotImplementedError("later")

    assert str(failing(CannotBeLoaded, "fresh checkpoint")["fresh checkpoint"]) == (
        "CannotBeLoaded, float64 on cpu, fresh checkpoint: NotImplementedError: later"
    )


def test_a_reference_that_computes_its_numbers_in_float32() -> None:
    class Rounded(Right):
        def move(self, p: Any, m: Any, v: Any, step: int, group: Any) -> None:
            rate = float(torch.tensor(group["lr"] / (1 - 0.9**step), dtype=torch.float32))
            super().move(p, m, v, step, {**group, "lr": rate * (1 - 0.9**step)})

    assert "reference" in failing(Right, "reference", reference=Rounded)
    assert not failing(Right, "reference", reference=Rounded, reference_precision=torch.float32)
    assert "reference" in failing(Right, "reference", reference=Ascends, reference_precision=torch.float32)


def test_the_cuda_kernel_compiles_without_a_gpu() -> None:
    assert failing(Lion, "cuda kernel") == {}


def test_the_checks_leave_nothing_behind() -> None:
    made = []

    def make(params: Any) -> Right:
        optimizer = Right(params)
        made.append(weakref.ref(optimizer))
        return optimizer

    state, excepthook = torch.random.get_rng_state(), sys.excepthook
    failing(make, "checkpoint", "repeats", "no growth", "order", "sharded")
    gc.collect()
    assert all(optimizer() is None for optimizer in made)
    assert torch.equal(state, torch.random.get_rng_state())
    assert sys.excepthook is excepthook  # torch.distributed's puts [rank0] before each traceback


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="steps must be at least 4, not 3"):
        assert_optimizer_agrees(Lion, steps=3)
    with pytest.raises(ValueError, match="shapes must name at least one shape"):
        assert_optimizer_agrees(Lion, shapes=[])
    with pytest.raises(
        ValueError, match=r"reference_precision must be torch\.float64 or torch\.float32, not"
    ):
        assert_optimizer_agrees(Lion, reference_precision=torch.float16)
    with pytest.raises(TypeError, match=r"make\(\) must give a torch\.optim\.Optimizer, not int"):
        assert_optimizer_agrees(lambda params: 3)
