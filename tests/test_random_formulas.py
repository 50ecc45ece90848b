"""One formula, every machine, also for formulas that nobody would write: made by lot, compared with eager."""

from __future__ import annotations

import linecache
import random
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines import cuda, plan

UNARY = [
    *("xp.sqrt(xp.abs({}))", "xp.rsqrt(1 + xp.square({}))", "xp.abs({})", "xp.sign({})", "xp.tanh({})"),
    *("xp.sigmoid({})", "xp.sin({})", "xp.cos({})", "xp.exp(-xp.abs({}))", "xp.log(1 + xp.abs({}))"),
    *("xp.floor({})", "xp.ceil({})", "(-{})", "(+{})", "{}**2", "xp.tanh({})**3", "(1 + xp.abs({})) ** -0.5"),
    *("xp.reciprocal(1 + xp.abs({}))", "xp.clamp({}, -0.5, lr)", "helper({})"),
]
BINARY = [
    *("({} + {})", "({} - {})", "({} * {})", "({} / (1 + xp.abs({})))", "xp.maximum({}, {})"),
    *("xp.minimum({}, {})", "xp.where({} > {}, g, p)", "xp.where({} <= {}, a, 0.5)", "({} if flag else {})"),
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
        return lot.choice(UNARY).format(f"({expression(lot, depth - 1, names)})")
    return lot.choice(BINARY).format(expression(lot, depth - 1, names), expression(lot, depth - 1, names))


def optimizer_class(seed: int) -> type[ElementwiseOptimizer]:
    lot = random.Random(seed)
    names = ["p", "g", "a", "b"]
    lines = ["SLOPE = 0.25", "def helper(x):", "    return x * SLOPE + 1"]
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
    namespace: dict[str, Any] = {"xp": torch}
    exec(compile(source, f"formula {seed}", "exec"), namespace)

    class Random(ElementwiseOptimizer):
        states = ("a", "b")
        rule = staticmethod(namespace["rule"])

        @staticmethod
        def coefficients(step: Any, lr: Any) -> Any:
            return {"lr": lr, "grown": 0.1 * step, "flag": flag}

    return Random


def outcome(seed: int, **engine: bool) -> tuple[list[torch.Tensor], str]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in ((33,), (4, 5))]
    optimizer = optimizer_class(seed)(params, {"lr": 0.3, **engine})
    for _ in range(3):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
    values = [value for p in params for value in (p.detach(), *(optimizer.state[p][name] for name in "ab"))]
    return values, optimizer.engine_report()


@pytest.mark.parametrize("seed", range(8))
def test_every_engine_computes_what_torch_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = outcome(seed, fused=False)
    runs = [outcome(seed, fused=True), outcome(seed, foreach=True)]
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setitem(plan.FUSED, "cpu", cuda.CudaBatch)
    runs.append(outcome(seed, fused=True))
    for (values, report), engine in zip(runs, ("fused CPU", "foreach", "fused CUDA"), strict=True):
        assert report.startswith(engine)
        for mine, theirs in zip(values, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11, equal_nan=True)
