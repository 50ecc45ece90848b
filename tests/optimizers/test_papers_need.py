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


def steps(cls: Any, **engine: Any) -> tuple[list[float], ElementwiseOptimizer]:
    param = Parameter(torch.tensor(P, dtype=torch.float64))
    param.grad = torch.tensor(G, dtype=torch.float64)
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
ON_EAGER: dict[str, tuple[Any, Callable[[float, float], float]]] = {
    "atan2": (lambda p, g, lr: p - lr * xp.atan2(g, p), lambda p, g: p - 0.1 * math.atan2(g, p)),
    "nan_to_num": (
        lambda p, g, lr: p - xp.nan_to_num(xp.log(g)),
        lambda p, g: p - (math.log(g) if g > 0 else 0),
    ),
}


@every_engine
@pytest.mark.parametrize("what", IN_KERNELS)
def test_powers(what: str, engine: dict[str, bool]) -> None:
    rule, expected = IN_KERNELS[what]
    found, made = steps(optimizer(rule, just_lr), **engine)
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    if engine.get("fused"):
        assert made.engine_report().startswith("fused CPU engine: 1")


@pytest.mark.parametrize("what", ON_EAGER)
def test_what_no_kernel_knows(what: str) -> None:
    rule, expected = ON_EAGER[what]
    found, made = steps(optimizer(rule, just_lr))
    assert found == pytest.approx(list(map(expected, P, G)), rel=1e-14)
    assert f"calls torch.{what}(), which is not on the list" in made.engine_report()
    with pytest.raises(RuntimeError, match=rf"torch\.{what}\(\)"):
        steps(optimizer(rule, just_lr), fused=True)


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
