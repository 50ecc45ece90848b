"""The lecture's program, differentiated symbolically, numerically, forward and in reverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import PRIMITIVES, Primitive, Variable, numerical, primitives, symbolic


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


def test_differences_of_a_function_that_writes_into_its_arguments():
    def f(x, factor):
        factor.mul_(3)
        return (x.mul_(2) * factor).sum()

    x, factor = torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(numerical.grad(f)(x, factor), torch.full((3,), 6.0, dtype=torch.float64))
    assert x.tolist() == factor.tolist() == [1.0, 1.0, 1.0]


def test_symbolic_refuses_what_has_no_formula():
    with pytest.raises(TypeError, match="x > 0 has no value, for its symbols have none"):
        symbolic.formula(lambda x: x if x > 0 else -x)
    with pytest.raises(NotImplementedError, match="round has no symbolic rule"):
        symbolic.formula(torch.round)
    with pytest.raises(TypeError, match="x has no value"):
        symbolic.formula(lambda x: torch.where(torch.isnan(x), x, 2 * x))
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


# -- symbolic rules ------------------------------------------------------------------------------------------

NO_FORMULA = {"round"}  # halves go to even numbers, for which sympy has no word


@pytest.mark.parametrize("module", [primitives.elementwise, primitives.activations])
def test_what_treats_each_element_alike_has_a_formula(module):
    alike = [
        op for op in vars(module).values() if isinstance(op, Primitive) and op.jvp == primitives.ELEMENTWISE
    ]
    without = {op.name for op in alike if op.symbolic is None}
    assert without <= NO_FORMULA
    lines = symbolic.table().splitlines()
    assert {line.split("`")[1].split("(")[0] for line in lines if line.endswith("| none |")} >= without
    assert "| `log1p(x)` | `log(1 + x)` |" in lines


INSIDE = {"log": 0.3, "log1p": 0.3, "log2": 0.3, "log10": 0.3, "sqrt": 0.3, "rsqrt": 0.3, "acosh": 1.4}
FORMULAS = {
    **{name: getattr(torch, name) for name in (
        "neg", "reciprocal", "square", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt",
        "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh",
        "acosh", "atanh", "erf",
        "abs", "sigmoid", "relu", "clone",
    )},
    **{name: getattr(F, name) for name in (
        "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "softplus", "logsigmoid", "hardtanh",
        "hardswish", "relu6", "mish", "tanhshrink", "softsign",
    )},
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus, beta": lambda x: F.softplus(3 * x, beta=2, threshold=1),
    "clamp": lambda x: torch.clamp(2 * x, -1, 0.9) + x.clamp(min=0.1) * x.clamp(max=0.2),
    "empty clamp": lambda x: x * torch.clamp(x, 2, 1),
    "where": lambda x: torch.where((x > 0) & ~(x >= 0.5) | torch.lt(x, -0.5), x * x, torch.exp(-x)),
    "steps": lambda x: x * (torch.floor(3 * x) + torch.ceil(2 * x) + torch.trunc(4 * x) + torch.sign(x)),
    "remainder": lambda x: (5 * x) % (x + 2),
    "logaddexp": lambda x: torch.logaddexp(x, 3 * x),
    "maximum": lambda x: torch.maximum(x, x * x) + torch.minimum(2 * x, x),
    "atan2": lambda x: torch.atan2(x, x + 1),
    "detach": lambda x: x * torch.sin(x).detach() + (x * x.detach()).detach() * x,
    "in place": lambda x: (x * 1).mul_(3).exp_(),
    "prelu": lambda x: F.prelu(x, torch.tensor(0.2, dtype=torch.float64)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_symbolic_derivatives_are_torch_s(name: str):
    f, tested = FORMULAS[name], 0
    formula = symbolic.formula(f)
    for at in (-0.83, -0.31, 0.27, 0.74):
        x = torch.tensor(at + INSIDE.get(name, 0) * 3, dtype=torch.float64, requires_grad=True)
        y = f(x)
        (expected,) = torch.autograd.grad(y, x)
        value = float(formula.expression.subs(formula.symbols[0], x.item()))
        assert value == pytest.approx(y.item(), rel=1e-12)
        assert formula.grad(x)[0].item() == pytest.approx(expected.item(), rel=1e-12), (at, str(formula))
        tested += 1
    assert tested == 4


def test_corners_are_torch_s():
    for f, at in ((F.relu, 0.0), (torch.abs, 0.0), (F.elu, 0.0), (lambda x: torch.clamp(x, 0, 1), 1.0)):
        x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(f(x), x)
        assert symbolic.formula(f).grad(at)[0].item() == expected.item()


def test_a_rule_of_one_s_own_as_text():
    @autograd.primitive(x=lambda g, x, n: g * n * x ** (n - 1), symbolic="x**n + constant(floor(x))")
    def power(x, n=3):
        return x**n + torch.floor(x)

    try:
        formula = symbolic.formula(lambda x: power(x, 4) / 2)
    finally:
        del PRIMITIVES["power"]
    assert str(formula) == "z = x**4/2 + floor(x)/2\ndz/dx = 2*x**3"


def test_arguments_with_a_default_are_no_symbols():
    def program(x, slope=2.0):
        return x * slope

    assert str(symbolic.formula(program)) == "z = 2*x\ndz/dx = 2"
