"""One formula, every machine, also for formulas that nobody would write: made by lot, compared with eager."""

from __future__ import annotations

import linecache
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cuda import bucket as cuda

UNARY = [
    *("xp.sqrt(xp.abs({}))", "xp.rsqrt(1 + xp.square({}))", "xp.abs({})", "xp.sign({})", "xp.tanh({})"),
    *("xp.sigmoid({})", "xp.sin({})", "xp.cos({})", "xp.exp(-xp.abs({}))", "xp.log(1 + xp.abs({}))"),
    *("xp.floor({})", "xp.ceil({})", "(-{})", "(+{})", "{}**2", "xp.tanh({})**3", "(1 + xp.abs({})) ** -0.5"),
    *("xp.reciprocal(1 + xp.abs({}))", "xp.clamp({}, -0.5, lr)", "helper({})", "2 * xp.tanh({})**2"),
    *("({} > 0) * 0.3", "xp.where({} < lr, 0.1, grown)", "{}.abs().sqrt()", "torch_tanh({})", "SCALE * {}"),
    *("xp.clamp({}, max=0.7)", "(1 + {} * {}) ** 0.5", "xp.tanh({}) ** 4", "plus_one({})"),
]
BINARY = [
    *("({} + {})", "({} - {})", "({} * {})", "({} / (1 + xp.abs({})))", "xp.maximum({}, {})"),
    *("xp.minimum({}, {})", "xp.where({} > {}, g, p)", "xp.where({} <= {}, a, 0.5)", "({} if flag else {})"),
    *("xp.where(({} > 0) & ~({} < 0.3), 0.7, b)", "xp.where(({} >= g) | ({} != p), lr, -0.1)"),
]
WITH_NUMBER = [
    "({number} * {value})",
    "({value} + {number})",
    "({number} - {value})",
    "({value} / (2 + {number}))",
]


def expression(lot: random.Random, depth: int, names: list[str]) -> str:
    if depth == 0 or lot.random() < 0.15:
        value, number = lot.choice(names), lot.choice(["lr", "grown", "2", "0.5", "-1.5"])
        return lot.choice(["{value}"] * 3 + WITH_NUMBER).format(value=value, number=number)
    if lot.random() < 0.45:
        value = f"({expression(lot, depth - 1, names)})"
        return lot.choice(UNARY).format(value, value)
    return lot.choice(BINARY).format(expression(lot, depth - 1, names), expression(lot, depth - 1, names))


def optimizer_class(seed: int) -> type[ElementwiseOptimizer]:
    lot = random.Random(seed)
    names = ["p", "g", "a", "b"]
    lines = ["SLOPE = 0.25", "def helper(x):", "    return x * SLOPE + 1"]
    lines += ["def plus_one(x):", "    x = x * lr_free", "    x += 1", "    return x"]
    lines += ["def rule(p, g, a, b, lr, grown, flag):"]
    for name in ["s", "t"][: lot.randint(0, 2)]:
        lines.append(f"    {name} = {expression(lot, 3, names)}")
        names.append(name)
    lines.append(f"    return p + {', '.join(expression(lot, depth, names) for depth in (3, 3, 2))}")
    source, flag = "\n".join(lines) + "\n", lot.random() < 0.5
    linecache.cache[f"formula {seed}"] = (
        len(source),
        None,
        source.splitlines(keepends=True),
        f"formula {seed}",
    )
    namespace: dict[str, Any] = {
        "xp": torch,
        "torch_tanh": torch.tanh,
        "SCALE": np.float32(0.5),
        "lr_free": 0.1,
    }
    exec(compile(source, f"formula {seed}", "exec"), namespace)

    class Random(ElementwiseOptimizer):
        states = ("a", "b")
        rule = staticmethod(namespace["rule"])

        @staticmethod
        def coefficients(step: Any, lr: Any) -> Any:
            return {"lr": lr, "grown": 0.1 * step, "flag": flag}

    return Random


STEPS = 3


def start() -> tuple[list[Parameter], list[list[torch.Tensor]]]:
    """Parameters, and their gradients in each step."""
    generator = torch.Generator().manual_seed(0)

    def normal(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    params = [Parameter(normal(shape)) for shape in ((33,), (4, 5))]
    return params, [[normal(tuple(param.shape)) for param in params] for _ in range(STEPS)]


def in_torch(seed: int) -> list[torch.Tensor]:
    """The formula as Python and torch understand it."""
    cls = optimizer_class(seed)
    params, gradients = start()
    values = [[p.detach(), torch.zeros_like(p.detach()), torch.zeros_like(p.detach())] for p in params]
    torch.set_default_dtype(torch.float64)  # of numbers as tensors; conftest.py puts it back
    for step, grads in enumerate(gradients, 1):
        for own, g in zip(values, grads, strict=True):
            own[:] = cls.rule(own[0].clone(), g.clone(), own[1], own[2], **cls.coefficients(step, 0.3))
    torch.set_default_dtype(torch.float32)
    return [value for own in values for value in own]


def outcome(seed: int, **engine: bool) -> tuple[list[torch.Tensor], str]:
    params, gradients = start()
    optimizer = optimizer_class(seed)(params, {"lr": 0.3, **engine})
    for grads in gradients:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
    values = [value for p in params for value in (p.detach(), *(optimizer.state[p][name] for name in "ab"))]
    return values, optimizer.engine_report()


@pytest.mark.parametrize("seed", range(8))
def test_every_engine_computes_what_torch_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = in_torch(seed)
    runs = [outcome(seed, fused=True), outcome(seed, foreach=True), outcome(seed, fused=False)]
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setattr(cuda.CudaBucket, "serves", lambda device: device == "cpu")
    runs.append(outcome(seed, fused=True))
    for (values, report), engine in zip(runs, ("fused CPU", "foreach", "eager", "fused CUDA"), strict=True):
        assert report.startswith(engine)
        for mine, theirs in zip(values, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11, equal_nan=True)
