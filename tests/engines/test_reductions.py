"""Rules that make numbers of whole tensors (sums, norms, ...): the same on every engine, with any threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from torch import Tensor
from torch.nn import Parameter

from torchopt_course.engines.cpu.reductions import BLOCK

from .formulas import formulas, rule_of
from .reducing import ENGINES, interpret_cuda, normal, optimizer_of


def stepped(
    rule: Callable[..., Any], shapes: Any, engine: str, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    params = [Parameter(normal(shape, i, dtype)) for i, shape in enumerate(shapes)]
    optimizer = optimizer_of(rule, params, **ENGINES[engine])
    for step in range(2):
        for i, param in enumerate(params):
            param.grad = normal(tuple(param.shape), 10 + i + step, dtype)
        optimizer.step()
    assert optimizer.engine_report().startswith(engine)
    return [param.detach() for param in params]


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "torch.sum(x)": lambda x: torch.sum(x),
    "x.sum()": lambda x: x.sum(),
    "mean": lambda x: xp.mean(x),
    "x.mean()": lambda x: x.mean(),
    "rms": lambda x: xp.sqrt(xp.mean(x * x)),
    "torch.norm": lambda x: xp.norm(x),
    "x.norm()": lambda x: x.norm(),
    "norm of order 1": lambda x: xp.norm(x, 1),
    "norm of order inf": lambda x: x.norm(p=math.inf),
    "frobenius": lambda x: torch.norm(x, p="fro"),
    "vector_norm": lambda x: torch.linalg.vector_norm(x),
    "vector_norm of order 1": lambda x: torch.linalg.vector_norm(x, ord=1),
    "linalg.norm": lambda x: torch.linalg.norm(x),
    "max": lambda x: xp.max(x),
    "x.amax()": lambda x: x.amax(),
    "min": lambda x: xp.min(x),
    "x.amin()": lambda x: x.amin(),
    "count_nonzero": lambda x: xp.count_nonzero(xp.maximum(x, 0 * x)),
    "sum of a comparison": lambda x: xp.sum(x > 0.5),
    "any": lambda x: xp.any(x > 2.5),
    "all": lambda x: (x > -9).all(),
    "product": lambda x: xp.sum(x * (x + 1)),
    "two of one another": lambda x: xp.sum(x - xp.mean(x) > xp.norm(x) / 30),
    "clamped": lambda x: xp.clamp(xp.norm(x), min=3.0),
    "isfinite": lambda x: xp.isfinite(xp.sum(x)) & ~xp.isnan(xp.max(x)) & ~xp.isinf(xp.min(x)),
    "where of numbers": lambda x: xp.where(xp.sum(x) > 0, 0.3, 0.7),
}
KERNELS = (
    *("torch.sum(x)", "torch.norm", "max", "min", "mean", "any", "all", "count_nonzero", "isfinite"),
    *("two of one another", "clamped", "where of numbers"),
)
SHAPES = [(3,), (), (2, BLOCK + 77), (5, 7)]


def keeping(reductions: Mapping[str, Callable[[Any], Any]]) -> tuple[tuple[str, ...], Callable[..., Any]]:
    """States, and a rule that puts a reduction of the gradient into each."""
    names = tuple(f"r{i}" for i in range(len(reductions)))
    new = ", ".join(f"0 * {name} + of_{name}(g)" for name in names)
    functions = {f"of_{name}": reduce for name, reduce in zip(names, reductions.values(), strict=True)}
    return names, eval(f"lambda p, g, {', '.join(names)}, lr: (p - lr * g, {new})", functions)


def test_each_reduction_is_torchs(engine: str) -> None:
    """One rule that keeps each of them as a state, which is full of it."""
    fused = engine.startswith("fused")  # there each costs time to compile, and spellings are one to kernels
    names, rule = keeping({name: SPELLINGS[name] for name in KERNELS} if fused else SPELLINGS)
    params = [Parameter(normal(shape, i)) for i, shape in enumerate(SHAPES)]
    for i, param in enumerate(params):
        param.grad = normal(SHAPES[i], 10 + i)
    optimizer = optimizer_of(rule, params, names, **ENGINES[engine])
    optimizer.step()
    assert optimizer.engine_report().startswith(engine)
    torch.set_default_dtype(torch.float64)  # of numbers as tensors; conftest.py puts it back
    for param in params:
        for name, (spelling, reduce) in zip(
            names, SPELLINGS.items() if not fused else [(n, SPELLINGS[n]) for n in KERNELS], strict=True
        ):
            expected = torch.zeros_like(param) + reduce(param.grad)
            mine = optimizer.state[param][name]
            torch.testing.assert_close(mine, expected.detach(), rtol=1e-12, atol=1e-13, msg=spelling)


# -- formulas by lot --------------------------------------------------------------------------------------


_REDUCTIONS = (
    *(f"xp.{name}({{}})" for name in ("sum", "mean", "norm", "max", "min", "count_nonzero")),
    *("xp.sqrt(xp.mean(xp.square({})))", "1.0 * xp.any({} > lr)", "(0.5 * xp.all({} < 2))"),
)


@pytest.mark.parametrize("examples", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_every_engine_computes_what_torch_does(examples: int) -> None:
    settings(max_examples=examples)(given(formulas(_REDUCTIONS))(check_on_every_engine))()


def check_on_every_engine(formula: tuple[str, str]) -> None:
    rule = rule_of(formula)
    expected = []
    torch.set_default_dtype(torch.float64)  # of numbers as tensors
    for i, shape in enumerate(SHAPES):
        p, m = normal(shape, i), torch.zeros(shape, dtype=torch.float64)
        for step in range(2):
            p, m = rule(p, normal(shape, 10 + i + step), m, 0.25)
        expected += [p, m]
    torch.set_default_dtype(torch.float32)
    for engine, options in ENGINES.items():
        params = [Parameter(normal(shape, i)) for i, shape in enumerate(SHAPES)]
        optimizer = optimizer_of(rule, params, ("m",), **options)
        with pytest.MonkeyPatch.context() as patch:
            if engine == "fused CUDA engine":
                interpret_cuda(patch)
            for step in range(2):
                for i, param in enumerate(params):
                    param.grad = normal(SHAPES[i], 10 + i + step)
                optimizer.step()
        assert optimizer.engine_report().startswith(engine), optimizer.engine_report()
        mine = [value for param in params for value in (param.detach(), optimizer.state[param]["m"])]
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)


# -- precision and threads --------------------------------------------------------------------------------


def clipped(p: Any, g: Any, lr: Any) -> Any:
    return p - lr * g / xp.norm(g) * xp.sum(xp.abs(g)) / xp.max(g) + xp.mean(p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_on_every_number_of_threads(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    shapes = [(3 * BLOCK + 5,), (17,), (40, 1000), (0,)]
    runs = []
    for count in (1, 2, 3):
        threads(count)
        runs.append(stepped(clipped, shapes, "fused CPU engine", dtype))
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_sums_are_as_exact_as_double_precision() -> None:
    """A million small numbers beside a large one: single precision would lose them."""

    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p * 0 + xp.sum(g)

    for dtype, tolerance in ((torch.float32, 2**-23), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)):
        g = torch.full((1 << 20,), 2.0**-12, dtype=dtype)
        g[0] = 1024
        param = Parameter(torch.zeros_like(g))
        param.grad = g
        optimizer = optimizer_of(rule, [param], fused=True)
        optimizer.step()
        exact = g.double().sum().item()
        assert abs(param[0].item() - exact) <= tolerance * exact


@pytest.mark.filterwarnings("ignore:invalid value")  # says numpy, where Triton's interpreter asks it
def test_nan_and_infinity_go_where_torch_lets_them(engine: str) -> None:
    reductions = {name: SPELLINGS[name] for name in KERNELS}
    names, rule = keeping(reductions)
    grads = []
    for odd in (math.nan, math.inf, -math.inf):
        for place in (3, BLOCK + 150):
            grads.append(normal((BLOCK + 200,)))
            grads[-1][place] = odd
    params = [Parameter(torch.zeros_like(grad)) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer = optimizer_of(rule, params, names, **ENGINES[engine])
    optimizer.step()
    torch.set_default_dtype(torch.float64)
    for param, grad in zip(params, grads, strict=True):
        for name, (spelling, reduce) in zip(names, reductions.items(), strict=True):
            expected = torch.zeros_like(grad) + reduce(grad)
            mine = optimizer.state[param][name]
            torch.testing.assert_close(mine, expected, equal_nan=True, rtol=1e-12, atol=0, msg=spelling)


def test_empty_tensors(engine: str) -> None:
    shapes = [(0,), (4, 0), (2,)]
    for mine, shape in zip(stepped(clipped, shapes, engine), shapes, strict=True):
        assert mine.shape == shape


# -- what a number of a tensor is in Python -----------------------------------------------------------------


def test_a_rule_that_decides_in_python_by_a_number_of_a_tensor_is_run_by_torch() -> None:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        norm = g.norm()
        return p - lr * (g / norm if norm > 1 else g)

    param = Parameter(torch.zeros(4))
    param.grad = torch.full((4,), 3.0)
    optimizer = optimizer_of(rule, [param])
    optimizer.step()
    assert "eager engine" in optimizer.engine_report()
    assert "xp.where" in optimizer.engine_report()
    torch.testing.assert_close(param.detach(), torch.full((4,), -0.125))


def test_a_number_of_a_tensor_is_no_state() -> None:
    with pytest.raises(
        TypeError, match=r"User\.rule returned one number of a whole tensor, expected tensors"
    ):
        optimizer_of(lambda p, g, m, lr: (p, xp.sum(g)), [Parameter(torch.ones(3))], ("m",))


def test_reductions_over_some_dimensions_are_run_by_torch() -> None:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * (g - xp.mean(g, dim=1, keepdim=True))

    param = Parameter(torch.zeros(2, 3))
    param.grad = torch.arange(6.0).reshape(2, 3)
    optimizer = optimizer_of(rule, [param])
    optimizer.step()
    assert "eager engine" in optimizer.engine_report()
    torch.testing.assert_close(param.detach(), -0.25 * torch.tensor([[-1.0, 0, 1], [-1, 0, 1]]))


def test_complex_numbers_are_refused(engine: str) -> None:
    param = Parameter(torch.ones(3, dtype=torch.complex64))
    param.grad = torch.ones(3, dtype=torch.complex64)
    options = {name: value for name, value in ENGINES[engine].items() if name == "foreach"}
    with pytest.raises(RuntimeError, match=r"norm\(\); but a parameter is complex"):
        optimizer_of(clipped, [param], **options).step()
