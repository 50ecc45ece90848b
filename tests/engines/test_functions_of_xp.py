"""What a rule may call means the same on every engine, also for zeros, infinities and NaN."""

from __future__ import annotations

import linecache
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.cuda import bucket as cuda
from torchopt_course.engines.native.compiler import CompilationError, native

EXPRESSIONS = [
    *("xp.sqrt(xp.abs(g))", "xp.rsqrt(1 + g * g)", "xp.reciprocal(g)", "xp.square(g)", "xp.abs(g)"),
    *("xp.exp(-xp.abs(g))", "xp.log(1 + g * g)", "xp.sin(p)", "xp.cos(p)", "xp.sigmoid(g)", "xp.tanh(g)"),
    *(
        "xp.sign(g)",
        "xp.sin(g)",
        "xp.cos(g)",
        "xp.floor(g)",
        "xp.ceil(g)",
        "xp.maximum(p, g)",
        "xp.minimum(p, g)",
    ),
    *("xp.clamp(g, -lr, 0.5)", "xp.clip(g, -lr, 0.5)", "g**2", "-(g**3)", "(1 + g * g) ** -0.5", "+g"),
    *("xp.where(g > 0, g, -2 * g)", "xp.where(g < 0, 0 * p, xp.where(p > 0, lr * g, p))"),
    *("xp.where(g > p, 1.0, 0.1)", "xp.where(g >= 0, lr, 0)", "0.3 * (g > 0) + (p <= 0.1)", "p * ~(g > 0)"),
    *(
        "xp.where((g > 0) & (p < 0) | (g == 1), g, p)",
        "xp.where((g > 0) ^ (p != 1), 0.7, p)",
    ),
    *("xp.clamp(g, max=lr)", "g.clamp(min=-0.1)", "xp.full_like(g, 0.3) * g", "xp.ones_like(g) - g.abs()"),
    *(
        "2 * g + g**2",
        "3 * g / (2 + g**3)",
        "g**2.0",
        "g**4",
        "(1 + g * g) ** 0.5",
        "xp.abs(g) ** -1",
        "g**-2",
    ),
    *("g ** (1 / 3)", "xp.abs(g) ** -1.7", "g**-3", "g**-4", "g**lr", "xp.abs(p) ** g", "g ** (lr - lr)"),
    *("-0.0 * g", "g * 1e300 * 1e-300", "g + 10**15", "g - 1e-45", "xp.minimum(g, xp.abs(p) * xp.inf)"),
    *("0.1 * lr**2 * g", "g * (1 - lr) / (3 - lr)", "p + (-lr) * g", "xp.special.expit(g) + xp.sgn(g)"),
    *("g.mul(2).sub(p).div(3)", "torch_sqrt(xp.abs(g))", "xp.add(p, other=g)", "xp.pow(g, exponent=2)"),
]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-30, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]


def rule_of(expression: str, states: tuple[str, ...] = ()) -> Any:
    """A rule whose source can be read, as Triton does."""
    source = f"def rule({', '.join(('p', 'g', *states))}, lr):\n    return {expression}\n"
    linecache.cache[expression] = len(source), None, source.splitlines(keepends=True), expression
    namespace: dict[str, Any] = {"xp": torch, "torch_sqrt": torch.sqrt}
    exec(compile(source, expression, "exec"), namespace)
    return namespace["rule"]


def in_torch(expression: str, dtype: torch.dtype) -> torch.Tensor:
    """The expression as Python and torch understand it."""
    torch.set_default_dtype(dtype)  # of the numbers that torch makes tensors of; conftest.py puts it back
    result: torch.Tensor = rule_of(expression)(*values(dtype), 0.25)
    torch.set_default_dtype(torch.float32)
    return result


def values(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(40, generator=generator, dtype=torch.float64).to(dtype)
    return p, torch.tensor(SPECIAL + [0.1 * i for i in range(28)], dtype=dtype)


def stepped(
    expression: str, dtype: torch.dtype, kept: tuple[str, ...] = (), **engine: bool
) -> tuple[torch.Tensor, str, dict[str, torch.Tensor]]:
    """One step of ``p = expression``, who took it, and the states, to which it may give values as well."""

    class User(ElementwiseOptimizer):
        states = kept
        rule = staticmethod(rule_of(expression, kept))

        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

    p, g = values(dtype)
    param = Parameter(p)
    param.grad = g
    optimizer = User([param], {"lr": 0.25, **engine})
    optimizer.step()
    return param.detach(), optimizer.engine_report(), optimizer.state[param]


def check(expression: str, dtype: torch.dtype, name: str, **engine: bool) -> None:
    got, report, _ = stepped(expression, dtype, **engine)
    assert report.startswith(name)
    assert_is_torchs(got, expression, dtype)


def assert_is_torchs(got: torch.Tensor, expression: str, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(got, in_torch(expression, dtype), rtol=tolerance, atol=0, equal_nan=True)


SINGLE = [(expression, torch.float32) for expression in EXPRESSIONS]
# Where the kernels tell the precisions apart: the numbers in a formula for numba, roots for Triton.
DOUBLE = [(expression, torch.float64) for expression in EXPRESSIONS if "." in expression.replace("xp.", "")]
every_case = pytest.mark.parametrize(("expression", "dtype"), SINGLE + DOUBLE, ids=str)


@cache
def of_numba(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What all expressions come to, several in a kernel: to compile one for each would take seconds."""
    results = {}
    chosen = [expression for expression, of in SINGLE + DOUBLE if of == dtype]
    for start in range(0, len(chosen), 10):
        batch = chosen[start : start + 10]
        names = tuple(f"s{i}" for i in range(len(batch)))
        _, report, states = stepped(", ".join(("p", *batch)), dtype, names, fused=True)
        assert report.startswith("fused CPU engine")
        results |= {expression: states[name] for expression, name in zip(batch, names, strict=True)}
    return results


@every_case
def test_numba(expression: str, dtype: torch.dtype) -> None:
    assert_is_torchs(of_numba(dtype)[expression], expression, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_foreach_and_eager(expression: str, dtype: torch.dtype) -> None:
    check(expression, dtype, "foreach engine", foreach=True)
    check(expression, dtype, "eager engine", fused=False)


@every_case
def test_triton(expression: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setattr(cuda.CudaBucket, "serves", lambda device: device == "cpu")
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
        native("allocating", "allocating", build, 1)


def test_a_function_that_numba_compiled_and_that_can_raise_is_for_no_kernel() -> None:
    """A kernel would end there, with the rest of the numbers as they were."""
    numba = pytest.importorskip("numba")

    @numba.njit  # type: ignore[untyped-decorator]
    def root(x: float) -> float:
        if x < 0:
            raise ValueError("negative")
        return x**0.5

    def build() -> Any:
        def kernel(at: int, n: int) -> None:
            for i in range(n):
                root(float(at + i))

        return kernel

    with pytest.raises(CompilationError, match="can raise an error in the middle"):
        native("raising", "test_functions_of_xp: raising", build, 2)
