"""The lecture's program, differentiated symbolically, numerically, forward and in reverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd
from torchopt_course.autograd import Variable, numerical, symbolic


def program(x, y):
    a = x * y
    b = torch.sin(x)
    return a + b


X, Y = 2.0, 3.0
BY_HAND = (Y + math.cos(X), X)  # dz/dx = y + cos x, dz/dy = x
POINT = (torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64))


@pytest.mark.parametrize(
    ("way", "tolerance"),
    [
        (lambda: symbolic.formula(program).grad(X, Y), 1e-15),
        (lambda: numerical.grad(program, argnums=(0, 1))(*POINT), 1e-9),
        (lambda: autograd.jacfwd(program, argnums=(0, 1))(*POINT), 1e-15),
        (lambda: autograd.grad(program, argnums=(0, 1))(*POINT), 1e-15),
    ],
    ids=["symbolic", "numerical", "forward", "reverse"],
)
def test_every_way_gives_the_derivation_on_the_slide(way, tolerance: float):
    got = [float(d) for d in way()]
    assert got == pytest.approx(BY_HAND, rel=tolerance, abs=0)


def test_backward_writes_the_same():
    x, y = Variable(POINT[0]), Variable(POINT[1])
    program(x, y).backward()
    assert (x.grad.item(), y.grad.item()) == pytest.approx(BY_HAND, rel=1e-15)


def test_the_formula_is_printed_as_on_the_slide():
    assert str(symbolic.formula(program)) == "z = x*y + sin(x)\ndz/dx = y + cos(x)\ndz/dy = x"


def test_symbolic_rules_mean_what_the_primitives_compute():
    def everything(x):
        total = (
            torch.exp(x) - torch.log(x) + torch.sqrt(x) / (1 + x**2) + 2**x + torch.tanh(x) * torch.sigmoid(x)
        )
        total = total + torch.cos(x) * torch.tan(x) - torch.atan(x) + torch.abs(x) + torch.relu(x) + 1 / x
        total = (
            total
            + torch.asin(x)
            + torch.acos(x) * torch.sinh(x)
            + torch.cosh(x) * torch.erf(x)
            + torch.square(x)
        )
        return (
            total + torch.maximum(x, 0.1 * x) - torch.minimum(x, 3 * x) + torch.rsqrt(x) + torch.reciprocal(x)
        )

    at = torch.tensor(0.4, dtype=torch.float64)
    (got,) = symbolic.formula(everything).grad(0.4)
    assert got.item() == pytest.approx(autograd.grad(everything)(at).item(), rel=1e-12)


def test_symbolic_refuses_what_has_no_formula():
    with pytest.raises(TypeError, match="x is a symbol and has no value"):
        symbolic.formula(lambda x: x if x > 0 else -x)
    with pytest.raises(NotImplementedError, match="logsigmoid has no symbolic rule"):
        symbolic.formula(lambda x: torch.nn.functional.logsigmoid(x))
    with pytest.raises(TypeError, match="scalars"):
        symbolic.formula(lambda x: x * torch.ones(2))


# -- finite differences --------------------------------------------------------------------------------------


def test_the_chosen_step_is_close_to_the_best_one():
    errors = numerical.error_against_step(torch.sin, 1.0, math.cos(1.0))
    chosen = min(range(len(errors.steps)), key=lambda k: abs(math.log(errors.steps[k] / errors.best)))
    assert errors.central[chosen] < 1e-9  # the best there is, up to luck: around eps ** (2 / 3)
    # Truncation on one side, round-off on the other, and forward differences are worse.
    assert errors.central[0] > 1e-2
    assert errors.central[-1] > 1e-5
    assert errors.central[4] == pytest.approx(math.cos(1.0) * 1e-4 / 6, rel=1e-3)
    assert errors.forward[4] == pytest.approx(math.sin(1.0) * 1e-2 / 2, rel=1e-2)


def test_the_picture_can_be_saved(tmp_path):
    errors = numerical.error_against_step(torch.exp, 0.0, 1.0, dtype=torch.float32)
    errors.plot(tmp_path / "errors.png")
    assert (tmp_path / "errors.png").stat().st_size > 1000
    assert "chosen: h = " in str(errors)


def test_steps_grow_with_the_number_and_are_exact():
    assert numerical.step_for(1e6, torch.float64) == pytest.approx(
        1e6 * numerical.step_for(1.0, torch.float64), rel=1e-3
    )
    h = numerical.step_for(0.3, torch.float64)
    assert (0.3 + h) - 0.3 == h


def test_numerical_gradients_keep_structure_and_shape():
    def f(w: dict[str, Tensor], x: Tensor) -> Tensor:
        return (w["a"] * x).sum() ** 2 + w["b"].sum()

    w = {"a": torch.randn(2, 3, dtype=torch.float64).t(), "b": torch.randn((), dtype=torch.float64)}
    x = torch.randn(3, 2, dtype=torch.float64)
    got, expected = numerical.grad(f)(w, x), torch.func.grad(f)(w, x)
    for name in w:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("h", [0.0, -1e-5, math.nan])
def test_a_step_must_be_positive(h: float):
    with pytest.raises(ValueError, match="h must be positive"):
        numerical.grad(torch.sum, h=h)
