"""What formulas of papers need besides plus and times: right on every engine, or by torch, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cuda.bucket import CudaBucket

from ..helpers import every_engine

P, G = (-1.5, -0.25, 0.5, 2.0), (0.75, -2.0, 3.0, 0.1)
BY_SIGN = [p - math.copysign(1, g) for p, g in zip(P, G, strict=True)]
AS_IT_IS = [p - g for p, g in zip(P, G, strict=True)]


def optimizer(rule: Any, coefficients: Any, **options: Any) -> type[ElementwiseOptimizer]:
    class Odd(ElementwiseOptimizer):
        def __init__(self, params: Any, **engine: Any) -> None:
            super().__init__(params, {"lr": 0.1, **options, **engine})

    Odd.rule, Odd.coefficients = staticmethod(rule), staticmethod(coefficients)  # type: ignore[assignment]
    return Odd


def steps(cls: Any, device: str = "cpu", **engine: Any) -> tuple[list[float], ElementwiseOptimizer]:
    param = Parameter(torch.tensor(P, dtype=torch.float64, device=device))
    param.grad = torch.tensor(G, dtype=torch.float64, device=device)
    made = cls([param], **engine)
    made.step()
    return param.tolist(), made


def just_lr(lr: Any) -> Any:
    return {"lr": lr}


IN_KERNELS: dict[str, tuple[Any, Callable[[float, float], float]]] = {
    "** 0.3": (lambda p, g, lr: p - lr * (g * g) ** 0.3, lambda p, g: p - 0.1 * (g * g) ** 0.3),
    "** (1 / 3)": (lambda p, g, lr: p - abs(g) ** (1 / 3), lambda p, g: p - abs(g) ** (1 / 3)),
    "** -1.5": (lambda p, g, lr: p - (1 + g * g) ** -1.5, lambda p, g: p - (1 + g * g) ** -1.5),
    "** lr": (lambda p, g, lr: p - abs(g) ** lr, lambda p, g: p - abs(g) ** 0.1),
    "** p": (lambda p, g, lr: abs(g) ** p, lambda p, g: abs(g) ** p),
    "2 ** g": (lambda p, g, lr: p - 2**g, lambda p, g: p - 2**g),
    "pow": (lambda p, g, lr: p - xp.pow(abs(g), 0.7), lambda p, g: p - math.pow(abs(g), 0.7)),
}


class Settings:
    share = 0.25


BETAS = (0.9, 0.5)


def halved(x: Any, times: int) -> Any:
    return halved(x * Settings.share * 2, times - 1) if times else x


def as_python_goes(p: Any, g: Any, *, lr: Any) -> Any:
    """Loops, a function in a function, a recursion, names, choices: one kernel without any of them."""

    def damped(x: Any) -> Any:
        return lr * x + math.sqrt(4) * g

    m, k = 0 * p, 0
    for beta in BETAS:
        m = beta * m + (1 - beta) * g
    while k < 2:
        m += k * g
        k += 1
    first, *rest = map(damped, (m, g))
    total = sum(x for x in (first, *rest)) + (lambda x: x - lr)(p)
    return p - step if (step := halved(total, 2)) is not None else p


def as_python_counts(p: float, g: float) -> float:
    m = 0.5 * (1 - 0.9) * g + 0.5 * g + g
    return p - ((0.1 * m + 2 * g) + (0.1 * g + 2 * g) + (p - 0.1)) / 4


def with_masks(p: Any, g: Any, lr: Any) -> Any:
    """Comparisons, whole numbers, true and false among numbers."""
    inside = xp.maximum((g > -1) * (g < 1), ~(p <= 1))
    return p - lr * xp.where(inside, 1, -2) + lr * ((g > p) + (g > 0)) - (1.0 - xp.logical_not(inside)) * True


def masks_counted(p: float, g: float) -> float:
    inside = -1 < g < 1 or p > 1
    return p - 0.1 * (1 if inside else -2) + 0.1 * (g > p or g > 0) - inside


IN_KERNELS |= {"Python": (as_python_goes, as_python_counts), "masks": (with_masks, masks_counted)}
ON_EAGER: dict[str, tuple[Any, Callable[[float, float], float]]] = {
    "atan2": (lambda p, g, lr: p - lr * xp.atan2(g, p), lambda p, g: p - 0.1 * math.atan2(g, p)),
    "nan_to_num": (
        lambda p, g, lr: p - xp.nan_to_num(xp.log(g)),
        lambda p, g: p - (math.log(g) if g > 0 else 0),
    ),
}


@every_engine
@pytest.mark.parametrize("what", IN_KERNELS)
def test_what_kernels_know(what: str, engine: dict[str, bool]) -> None:
    rule, expected = IN_KERNELS[what]
    found, made = steps(optimizer(rule, just_lr), **engine)
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    if engine.get("fused"):
        assert made.engine_report().startswith("fused CPU engine: 1")


@pytest.mark.parametrize("what", IN_KERNELS)
def test_what_triton_knows(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, fractional powers too."""
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setattr(CudaBucket, "serves", lambda device: device == "cpu")
    rule, expected = IN_KERNELS[what]
    found, made = steps(optimizer(rule, just_lr))
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    assert made.engine_report().startswith("fused CUDA engine: 1")


@pytest.mark.parametrize("what", ON_EAGER)
def test_what_no_kernel_knows(what: str) -> None:
    rule, expected = ON_EAGER[what]
    found, made = steps(optimizer(rule, just_lr))
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    assert f"calls torch.{what}(), which is not on the list" in made.engine_report()
    with pytest.raises(RuntimeError, match=rf"torch\.{what}\(\)"):
        steps(optimizer(rule, just_lr), fused=True)


BY_TORCH: dict[str, tuple[Any, Callable[[float, float], float], str]] = {
    "%": (lambda p, g, lr: p - g % 2, lambda p, g: p - g % 2, "calls mod()"),
    "//": (lambda p, g, lr: p - 1 // g, lambda p, g: p - 1 // g, "calls floordiv()"),
    "a coefficient's root": (
        lambda p, g, lr: p - math.sqrt(lr) * g,
        lambda p, g: p - math.sqrt(0.1) * g,
        "depends on the value of the coefficient lr",
    ),
    "a coefficient's choice": (
        lambda p, g, lr: p - min(lr, 0.05) * g,
        lambda p, g: p - 0.05 * g,
        "let coefficients() do it",
    ),
    "a dtype": (
        lambda p, g, lr: p - (g > 0).to(p.dtype),
        lambda p, g: p - (g > 0),
        "asks for .dtype of p",
    ),
}


@pytest.mark.parametrize("what", BY_TORCH)
def test_what_torch_alone_knows_says_why(what: str) -> None:
    rule, expected, reason = BY_TORCH[what]
    found, made = steps(optimizer(rule, just_lr))
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    assert made.engine_report().startswith("eager engine: 1")
    assert reason in made.engine_report()


@pytest.mark.parametrize(
    "rule",
    [
        lambda p, g, lr: p - xp.where(0 < g < 1, g, 0),
        lambda p, g, lr: p - xp.where(not g > 0, g, 0),
        lambda p, g, lr: p - any([g > 0, p > 0]),
        lambda p, g, lr: p - g if g in (p, lr) else p,
    ],
    ids=["0 < g < 1", "not", "any", "in"],
)
def test_what_python_would_decide_for_all_elements_at_once(rule: Any) -> None:
    with pytest.raises(TypeError, match=r"Odd\.rule decides by the values of a tensor .*xp\.where"):
        steps(optimizer(rule, just_lr))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32], ids=str)
def test_a_state_of_whole_numbers_is_refused(dtype: torch.dtype) -> None:
    cls = optimizer(lambda p, g, m, lr: (p - g, m + 1), just_lr)
    cls.states = ("m",)
    cls.initial_state = lambda self, name, param, group: torch.zeros_like(param, dtype=dtype)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=rf"made has dtype {dtype}, expected floating point"):
        steps(cls)


def by_number(p: Any, g: Any, mode: Any) -> Any:
    if mode == 1:
        return p - xp.sign(g)
    return p - g


def test_a_whole_number_chooses() -> None:
    """A number is no choice that a kernel could be made for; it is right by torch, and `mode == 1` is one."""
    for mode, expected in ((1, BY_SIGN), (2, AS_IT_IS)):
        found, made = steps(optimizer(by_number, lambda mode: {"mode": mode}, mode=mode))
        assert found == expected
        assert "let coefficients() do it" in made.engine_report()
        chosen, made = steps(optimizer(by_truth, lambda mode: {"is_sign": mode == 1}, mode=mode), fused=True)
        assert chosen == found


def by_truth(p: Any, g: Any, is_sign: Any) -> Any:
    return p - xp.sign(g) if is_sign else p - g


@every_engine
def test_a_text_chooses_in_coefficients(engine: dict[str, bool]) -> None:
    for mode, expected in (("sign", BY_SIGN), ("plain", AS_IT_IS)):
        cls = optimizer(by_truth, lambda mode: {"is_sign": mode == "sign"}, mode=mode)
        found, made = steps(cls, **engine)
        assert found == expected
        assert made.state_dict()["param_groups"][0]["mode"] == mode
    with pytest.raises(TypeError, match="returned a str, 'sign' for 'is_sign'"):
        steps(optimizer(by_truth, lambda mode: {"is_sign": mode}, mode="sign"), **engine)
