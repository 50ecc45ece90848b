"""Every mistake in a class of yours is named: the class, what was found, what was expected."""

# ruff: noqa: E501  the tables have a mistake in each line

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch as xp
from torch import nn

import torchopt_course as oc
from torchopt_course import ElementwiseOptimizer

ONE_NUMBER = "a rule sees one number at a time; use xp.NAME"


class Mine(ElementwiseOptimizer):
    """A rule without a mistake."""

    states = ("m",)

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.5, **options})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return p - lr * g, m + g


def with_changes(**changes: Any) -> type[ElementwiseOptimizer]:
    """The class above with some of its attributes replaced, functions as static methods."""
    functions = {
        name: staticmethod(value)
        for name, value in changes.items()
        if type(value) is type(with_changes) and name != "initial_state"
    }
    return type("Mine", (Mine,), changes | functions)


def parameter() -> nn.Parameter:
    param = nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    return param


def without(name: str) -> type[ElementwiseOptimizer]:
    members = {n: vars(Mine)[n] for n in ("states", "__init__", "coefficients", "rule") if n != name}
    bare = type("Mine", (ElementwiseOptimizer,), {"__init__": lambda self, p: None, **members})
    return type(
        "Mine", (bare,), {"__init__": lambda self, p: ElementwiseOptimizer.__init__(self, p, {"lr": 1.0})}
    )


def method(self: Any, p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p, m


class Super(Mine):
    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return super().rule(p, 2 * g, m, lr)  # type: ignore[misc]


CLASSES: dict[str, tuple[Callable[[], Any], str]] = {
    "no rule": (lambda: without("rule"), "Mine has no rule: expected a @staticmethod rule(p, g, *states"),
    "no coefficients": (lambda: without("coefficients"), "Mine has no coefficients: expected a @staticmethod"),
    "a method": (lambda: with_changes(rule=method), "got (self, p, g, m, lr): is @staticmethod missing?"),
    "no static method": (
        lambda: type("Mine", (Mine,), {"rule": lambda p, g, m, lr: (p, m)}),
        "Mine.rule is a method, expected a @staticmethod: write that above it",
    ),
    "nor coefficients": (
        lambda: type("Mine", (Mine,), {"coefficients": lambda lr: {"lr": lr}}),
        "Mine.coefficients is a method, expected a @staticmethod: write that above it",
    ),
    "super": (lambda: Super, "Super.rule calls super() without arguments, which is for methods: call the rule of"),
    "a class method": (lambda: with_changes(rule=classmethod(method)), "Mine.rule is a classmethod, expected a @s"),
    "no function": (
        lambda: with_changes(rule=functools.partial(Mine.rule)),
        "Mine.rule is a partial, expected a plain function",
    ),
    "another order": (
        lambda: with_changes(rule=lambda p, m, g, lr: (p, m)),
        "Mine.rule must start with the parameters (p, g, m), the states in the order in which",
    ),
    "stars": (lambda: with_changes(rule=lambda p, g, m, **k: (p, m)), "Mine.rule takes **k, expected each coeff"),
    "one star": (lambda: with_changes(rule=lambda p, g, m, *k: (p, m)), "Mine.rule takes *k, expected each coeff"),
    "a default": (lambda: with_changes(rule=lambda p, g, m, lr=1: (p, m)), "Mine.rule has a default for 'lr'"),
    "by position": (lambda: with_changes(rule=lambda p, g, m, lr, /: (p, m)), "Mine.rule takes 'm' by position"),
    "a dictionary": (lambda: with_changes(coefficients={"lr": 1}), "Mine.coefficients is a dict, {'lr': 1}, expe"),
    "coefficients(self)": (
        lambda: with_changes(coefficients=lambda self, lr: {"lr": lr}),
        "Mine.coefficients starts with 'self', expected options: is @staticmethod missing?",
    ),
    "coefficients(**k)": (lambda: with_changes(coefficients=lambda **k: k), "Mine.coefficients takes **k, expec"),
    "coefficients(lr, x=1)": (
        lambda: with_changes(coefficients=lambda lr, x=1: {"lr": lr}),
        "Mine.coefficients has a default for 'x', expected none",
    ),
    "an unknown option": (
        lambda: with_changes(coefficients=lambda lr, weight_dacay: {"lr": lr}),
        "Mine.coefficients asks for 'weight_dacay', expected step, first or an option: differentiable, foreach,",
    ),
    "states: a string": (lambda: with_changes(states="m"), "Mine.states is a str, 'm', expected a tuple of names"),
    "a state twice": (lambda: with_changes(states=("m", "m")), "Mine has the state 'm' twice, expected each once"),
    "and optional": (lambda: with_changes(optional_states={"m": "lr"}), "Mine has the state 'm' twice"),
    "a state no name": (lambda: with_changes(states=("m", 1)), "Mine has a int, 1 among its states, expected a n"),
    "a state of two words": (lambda: with_changes(states=("a b",)), "Mine has a str, 'a b' among its states"),
    "a state called step": (lambda: with_changes(states=("step",)), "calls a state 'step', which is the number"),
    "a state called g": (lambda: with_changes(states=("g",)), "Mine calls a state 'g', which is the gradient"),
    "optional: a list": (lambda: with_changes(optional_states=["n"]), "Mine.optional_states is a list, ['n'], exp"),
    "optional: no option": (
        lambda: with_changes(optional_states={"n": "keep"}, rule=lambda p, g, m, n, lr: (p, m, n)),
        "Mine.optional_states asks for 'keep', expected step, first or an option",
    ),
    "a state called lr": (
        lambda: with_changes(states=("lr",), rule=lambda p, g, lr: (p, lr)),
        "Mine calls both a state and a coefficient 'lr'",
    ),
    "too few coefficients": (
        lambda: with_changes(coefficients=lambda: {}),  # noqa: PIE807
        "Mine.rule takes the coefficients ['lr'], but coefficients() returned []",
    ),
    "too many": (
        lambda: with_changes(coefficients=lambda lr: {"lr": lr, "x": lr}),
        "Mine.rule takes the coefficients ['lr'], but coefficients() returned ['lr', 'x']",
    ),
    "no dictionary": (lambda: with_changes(coefficients=lambda lr: [lr]), "Mine.coefficients returned a list, [0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CLASSES)
def test_a_class(mistake: str) -> None:
    """By the constructor, before anything has happened."""
    make, message = CLASSES[mistake]
    with pytest.raises(TypeError) as error:
        make()([parameter()])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "adam",
            "returned a str, 'adam' for 'lr', expected a number, a boolean, None or a tensor of one element",
        ),
        ([1], "returned a list, [1] for 'lr'"),
        (1j, "returned a complex, 1j for 'lr'"),
        (np.ones(2), "returned a ndarray, array([1., 1.]) for 'lr'"),
        (torch.ones(2), "returned a Tensor, tensor([1., 1.]) for 'lr', expected one real number"),
        (None, f"Mine.rule computes with None: {ONE_NUMBER}"),
    ],
    ids=str,
)
def test_a_coefficient(value: Any, message: str) -> None:
    """In the constructor, or in the step in which it comes up; then nothing has been changed."""
    with pytest.raises((TypeError, ValueError)) as error:
        with_changes(coefficients=lambda lr: {"lr": value})([parameter()])
    assert message in str(error.value)
    for fused in (None, False):
        param = parameter()
        late = with_changes(coefficients=lambda step, lr: {"lr": value if step == 2 else lr})
        optimizer = late([param], fused=fused)
        optimizer.step()
        before = param.detach().clone()
        with pytest.raises((TypeError, ValueError)) as error:
            optimizer.step()
        assert message in str(error.value)
        assert torch.equal(param, before)


def test_coefficients_with_names_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"coefficients\(\) returned \[1, 'lr'\]"):
        with_changes(coefficients=lambda lr: {"lr": lr, 1: 2})([parameter()])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda step, lr: {"lr": lr / (step - 2)}, ZeroDivisionError),
        (lambda step, lr: {"lr": math.log(2 - step)}, ValueError),
        (lambda step, lr: {"lr": (0, 1)[int(step)]}, IndexError),
    ],
)
def test_an_error_in_coefficients_tells_what_they_were_given(make: Any, error: type[Exception]) -> None:
    optimizer = with_changes(coefficients=make)([parameter()])
    optimizer.step()
    with pytest.raises(error, match=r"^Mine\.coefficients\(lr=0\.5, step=2\.0\), in `.*`: "):
        optimizer.step()


def test_an_edited_option_that_the_formula_cannot_take_is_named() -> None:
    param = parameter()
    optimizer = oc.Adam([param])
    optimizer.param_groups[0]["betas"] = (0.9, 1)
    with pytest.raises(ZeroDivisionError, match=r"Adam\.coefficients\(.*betas=\(0\.9, 1\)"):
        optimizer.step()
    assert torch.equal(param.detach(), torch.ones(3))


def test_maximize_may_be_anything_that_is_true_or_false() -> None:
    assert oc.Adam([parameter()], maximize=[1]).step() is None  # type: ignore[arg-type, func-returns-value]


@pytest.mark.parametrize("nan", [math.nan, np.float64("nan"), torch.tensor(math.nan)], ids=repr)
def test_a_coefficient_that_is_no_number(nan: Any) -> None:
    """From the start it is a mistake; what becomes one, a rate for instance, counts as in torch."""
    with pytest.raises(ValueError, match=r"Mine\.coefficients returned nan for 'lr', expected a number"):
        with_changes(coefficients=lambda lr: {"lr": nan})([parameter()])
    param = parameter()
    optimizer = with_changes(coefficients=lambda step, lr: {"lr": nan if step == 2 else lr})([param])
    optimizer.step()
    optimizer.step()
    assert param.isnan().all()


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


# -- what is no mistake --------------------------------------------------------------------------------------


def of_many_arguments(states: int, numbers: int) -> type[ElementwiseOptimizer]:
    s, c = [f"s{i}" for i in range(states)], [f"c{i}" for i in range(numbers)]
    source = f"def rule(p, g, {', '.join(s + c)}):\n    return p - ({' + '.join(c)}) * g"
    source += "".join(f", {name} + {i} * g" for i, name in enumerate(s))
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return with_changes(states=tuple(s), rule=namespace["rule"], coefficients=lambda lr: dict.fromkeys(c, lr))


def test_many_arguments() -> None:
    for engine in ({"fused": True}, {"foreach": True}, {"fused": False}):
        param = parameter()
        optimizer = of_many_arguments(40, 40)([param], **engine)
        optimizer.step()
        assert param.tolist() == [1 - 40 * 0.5] * 3
        assert optimizer.state[param]["s39"].tolist() == [39.0] * 3


def by_keyword(p: Any, g: Any, m: Any, *, lr: Any) -> Any:
    return p - lr * g, m


def with_temporaries(p: Any, g: Any, m: Any, lr: Any) -> Any:
    step = lr * g
    step *= 2
    also = step
    also -= g
    lr += 1
    return p - step + lr - 1.5, m


@pytest.mark.parametrize("engine", [{"fused": True}, {"foreach": True}, {"fused": False}], ids=str)
def test_correct_though_unusual(engine: dict[str, bool]) -> None:
    """Coefficients by keyword, += on values of the rule's own, numbers as new states, states in a list."""
    for rule, expected in {
        by_keyword: (0.5, 0.0),
        with_temporaries: (1.0, 0.0),
        lambda p, g, m, lr: (p - lr, 7.0): (0.5, 7.0),
        lambda p, g, m, lr: [p - lr * g, g > 0]: (0.5, 1.0),
        lambda p, g, m, lr: (0, lr): (0.0, 0.5),
    }.items():
        param = parameter()
        optimizer = with_changes(rule=rule)([param], **engine)
        optimizer.step()
        assert (param[0].item(), optimizer.state[param]["m"][0].item()) == expected


class Memoryless(ElementwiseOptimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @staticmethod
    def coefficients(lr: float, first: bool) -> dict[str, Any]:
        return {"lr": lr, "first": first}

    @staticmethod
    def rule(p: Any, g: Any, lr: float, first: bool) -> Any:
        return p - lr * (2 * g if first else g)


def test_first_without_a_state_that_could_tell() -> None:
    with pytest.raises(TypeError, match=r"Memoryless\.coefficients asks for 'first', but .* no states"):
        Memoryless([nn.Parameter(torch.ones(2))])


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
