"""What the tables of the other tests say of Triton's interpreter, on a GPU: the same numbers as torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.testing import assert_optimizer_agrees
from torchopt_course.transforms import (
    cautious,
    centralize,
    clip_global_norm,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema,
    lookahead,
    skip_nonfinite,
)

from ..engines import test_functions_of_xp as functions
from ..engines import test_random_formulas as by_lot
from ..engines import test_reductions as reductions
from ..helpers import NAMES, ours, parameters, set_gradients, theirs
from ..optimizers import test_papers_need as papers

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
DEVICE = "cuda"
KINDS = ["vector", "matrix", "transposed", "channels_last", "large"]


def on_gpu(params: Any) -> list[Parameter]:
    return [Parameter(param.detach().to(DEVICE)) for param in params]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("expression", functions.EXPRESSIONS)
def test_functions_of_xp(expression: str, dtype: torch.dtype) -> None:
    class User(oc.ElementwiseOptimizer):
        rule = staticmethod(functions.rule_of(expression))

        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

    p, g = functions.values(dtype)
    param = Parameter(p.to(DEVICE))
    param.grad = g.to(DEVICE)
    optimizer = User([param], {"lr": 0.25, "fused": True})
    optimizer.step()
    assert optimizer.engine_report().startswith("fused CUDA engine")
    expected = functions.in_torch(expression, dtype)
    tolerance = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(param.detach().cpu(), expected, rtol=tolerance, atol=0, equal_nan=True)


@pytest.mark.parametrize("what", papers.IN_KERNELS)
def test_what_papers_need(what: str) -> None:
    rule, expected = papers.IN_KERNELS[what]
    found, made = papers.steps(papers.optimizer(rule, papers.just_lr), device=DEVICE)
    assert found == pytest.approx(list(map(expected, papers.P, papers.G)), rel=1e-13)
    assert made.engine_report().startswith("fused CUDA engine: 1")


@pytest.mark.parametrize("seed", range(8))
def test_formulas_by_lot(seed: int) -> None:
    params, gradients = by_lot.start()
    mine = on_gpu(params)
    optimizer = by_lot.optimizer_class(seed)(mine, {"lr": 0.3})
    for grads in gradients:
        for param, grad in zip(mine, grads, strict=True):
            param.grad = grad.to(DEVICE)
        optimizer.step()
    assert optimizer.engine_report().startswith("fused CUDA engine")
    values = [v for p in mine for v in (p.detach(), *(optimizer.state[p][name] for name in "ab"))]
    for value, expected in zip(values, by_lot.in_torch(seed), strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-9, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_reductions(dtype: torch.dtype) -> None:
    names, rule = reductions.keeping(reductions.SPELLINGS)
    shapes = [*reductions.SHAPES, (3, 30_001)]
    mine = on_gpu(reductions.normal(shape, i, dtype) for i, shape in enumerate(shapes))
    for i, param in enumerate(mine):
        param.grad = reductions.normal(shapes[i], 10 + i, dtype).to(DEVICE)
    optimizer = reductions.optimizer_of(rule, mine, names)
    optimizer.step()
    assert optimizer.engine_report().startswith("fused CUDA engine")
    torch.set_default_dtype(torch.float64)  # of numbers as tensors; conftest.py puts it back
    for param in mine:
        assert param.grad is not None
        grad = param.grad.cpu().double()
        for name, (spelling, reduce) in zip(names, reductions.SPELLINGS.items(), strict=True):
            expected = (torch.zeros_like(grad) + reduce(grad)).to(dtype)
            bounds = {torch.float32: (1e-6, 1e-5), torch.float64: (1e-12, 1e-12)}[dtype]
            got = optimizer.state[param][name].cpu()
            torch.testing.assert_close(got, expected, rtol=bounds[0], atol=bounds[1], msg=spelling)


def test_reductions_propagate_nan_and_infinity() -> None:
    names, rule = reductions.keeping(reductions.SPELLINGS)
    mine = on_gpu([torch.zeros(20_000, dtype=torch.float64) for _ in range(3)])
    for param, odd in zip(mine, (torch.nan, torch.inf, -torch.inf), strict=True):
        grad = reductions.normal((20_000,))
        grad[17_003] = odd
        param.grad = grad.to(DEVICE)
    optimizer = reductions.optimizer_of(rule, mine, names)
    optimizer.step()
    torch.set_default_dtype(torch.float64)
    for param in mine:
        assert param.grad is not None
        grad = param.grad.cpu()
        for name, (spelling, reduce) in zip(names, reductions.SPELLINGS.items(), strict=True):
            expected = torch.zeros_like(grad) + reduce(grad)
            got = optimizer.state[param][name].cpu()
            torch.testing.assert_close(got, expected, equal_nan=True, msg=spelling)


TRANSFORMS: dict[str, Any] = {
    "clip_norm": lambda: [clip_norm(0.5)],
    "clip_global_norm": lambda: [clip_global_norm(0.5)],
    "several": lambda: [clip_value(0.7), cautious(), decoupled_decay(0.1), lookahead(3), ema(0.7)],
    "centralize": lambda: [centralize()],
    "skip_nonfinite": lambda: [skip_nonfinite()],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    """On a GPU as by torch's operations on the CPU."""
    reference = parameters(KINDS, torch.float64)
    mine = on_gpu(reference)
    optimizer = oc.AdamW(mine, lr=0.1, transforms=TRANSFORMS[name]())
    other = oc.AdamW(reference, lr=0.1, transforms=TRANSFORMS[name](), fused=False)
    for step in range(6):
        set_gradients(step, mine, reference)
        if name == "skip_nonfinite" and step == 2:
            mine[1].grad[0, 0] = reference[1].grad[0, 0] = torch.nan  # type: ignore[index]
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param.detach().cpu(), twin.detach(), rtol=1e-10, atol=1e-12)
    assert optimizer.engine_report().startswith("fused CUDA engine")


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_steps_as_torchs(name: str) -> None:
    mine, reference = on_gpu(parameters(KINDS)), on_gpu(parameters(KINDS))
    optimizer = ours(name)(mine, lr=1e-2)
    other = theirs(name)(reference, lr=1e-2, foreach=False)
    for step in range(100):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param.detach(), twin.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_kit_has_nothing_to_say(name: str) -> None:
    """On the CPU and on the GPU; of the zoo it is asked in its own tests."""
    assert_optimizer_agrees(ours(name), steps=4)


def test_more_elements_than_fit_into_31_bits() -> None:
    """The last element of a tensor is as well stepped as the first."""
    count = 2**31 + 12_345
    if torch.cuda.mem_get_info()[0] < 6 * count:
        pytest.skip("6 bytes for each of two billion elements are not free")
    param = Parameter(torch.ones(count, dtype=torch.bfloat16, device=DEVICE))
    param.grad = torch.ones(count, dtype=torch.bfloat16, device=DEVICE)
    optimizer = oc.SGD([param], lr=0.5)
    optimizer.step()
    assert optimizer.engine_report().startswith("fused CUDA engine")
    values: Tensor = param.detach()
    assert values[[0, 2**31 - 1, 2**31, count - 1]].tolist() == [0.5] * 4
    assert values.amax().item() == values.amin().item() == 0.5
