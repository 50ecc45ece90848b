"""What a rule may call means the same on every engine, also for zeros, infinities and NaN."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines import cuda, plan
from torchopt_course.engines.compiler import CompilationError, native

EXPRESSIONS = [
    *("xp.sqrt(xp.abs(g))", "xp.rsqrt(1 + g * g)", "xp.reciprocal(g)", "xp.square(g)", "xp.abs(g)"),
    *("xp.exp(-xp.abs(g))", "xp.log(1 + g * g)", "xp.sin(p)", "xp.cos(p)", "xp.sigmoid(g)", "xp.tanh(g)"),
    *("xp.sign(p)", "xp.floor(g)", "xp.ceil(g)", "xp.maximum(p, g)", "xp.minimum(p, g)"),
    *("xp.clamp(g, -lr, 0.5)", "xp.clip(g, -lr, 0.5)", "g**2", "-(g**3)", "(1 + g * g) ** -0.5", "+g"),
    *("xp.where(g > 0, g, -2 * g)", "xp.where(g < 0, 0 * p, xp.where(p > 0, lr * g, p))"),
]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-30, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]


def rule_of(expression: str) -> Any:
    """A rule whose source can be read, as Triton does."""
    source = f"def rule(p, g, lr):\n    return {expression}\n"
    linecache.cache[expression] = len(source), None, source.splitlines(keepends=True), expression
    namespace: dict[str, Any] = {"xp": torch}
    exec(compile(source, expression, "exec"), namespace)
    return namespace["rule"]


def stepped(expression: str, dtype: torch.dtype, **engine: bool) -> tuple[torch.Tensor, str]:
    """One step of ``p = expression``, and who took it."""

    class User(ElementwiseOptimizer):
        rule = staticmethod(rule_of(expression))

        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

    generator = torch.Generator().manual_seed(0)
    param = Parameter(torch.randn(40, generator=generator).to(dtype))
    param.grad = torch.tensor(SPECIAL + [0.1 * i for i in range(28)], dtype=dtype)
    optimizer = User([param], {"lr": 0.25, **engine})
    optimizer.step()
    return param.detach(), optimizer.engine_report()


def check(expression: str, dtype: torch.dtype, name: str, **engine: bool) -> None:
    expected, _ = stepped(expression, dtype, fused=False)
    got, report = stepped(expression, dtype, **engine)
    assert report.startswith(name)
    tolerance = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=0, equal_nan=True)


SINGLE = [(expression, torch.float32) for expression in EXPRESSIONS]
# Where the kernels tell the precisions apart: the numbers in a formula for numba, roots for Triton.
DOUBLE = [
    (expression, torch.float64) for expression in EXPRESSIONS if "1" in expression or "sqrt" in expression
]
every_case = pytest.mark.parametrize(("expression", "dtype"), SINGLE + DOUBLE, ids=str)


@every_case
def test_numba(expression: str, dtype: torch.dtype) -> None:
    check(expression, dtype, "fused CPU engine", fused=True)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_foreach(expression: str) -> None:
    check(expression, torch.float32, "foreach engine", foreach=True)


@every_case
def test_triton(expression: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setitem(plan.FUSED, "cpu", cuda.CudaBatch)
    check(expression, dtype, "fused CUDA engine", fused=True)


def test_a_kernel_that_allocates_memory_is_refused() -> None:
    """As numba's own ``where`` does for numbers: nobody would give it back rightly."""

    def build() -> Any:
        def allocating(n: int) -> None:
            for i in range(n):
                if np.where(i > n // 2, 1.5, 2.5) > 2:
                    break

        return allocating

    with pytest.raises(CompilationError, match="for single numbers: one of the functions in it makes arrays"):
        native("allocating", "allocating", build, 1, holds_gil=False)
