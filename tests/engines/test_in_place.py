"""Programs in place: as many operations as torch's own optimizers, no memory, and never another's."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.operations import lists, tensors
from torchopt_course.engines.operations.in_place import in_place

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs

IN_PLACE = [{"fused": False}, {"foreach": True}]
every_way = pytest.mark.parametrize("engine", IN_PLACE, ids=["eager", "foreach"])


def operations(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> Counter[str]:
    """What a profiler sees of the usual step; dispatch modes would have each operation out of place."""
    for step in range(2):
        set_gradients(step, params)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            optimizer.step()
    return Counter(
        {event.key: event.count for event in seen.key_averages() if event.key.startswith("aten::")}
    )


@pytest.mark.parametrize("name", NAMES)
def test_eager_asks_for_no_more_memory_than_torch(name: str) -> None:
    mine, reference = parameters(["matrix", "vector"]), parameters(["matrix", "vector"])
    got = operations(ours(name)(mine, fused=False), mine)
    expected = operations(theirs(name)(reference, foreach=False), reference)
    words = ("mul", "add", "sub", "div", "sqrt", "lerp", "addcmul", "addcdiv")

    def total(counts: Counter[str], names: tuple[str, ...]) -> int:
        return sum(counts[f"aten::{name}"] for name in names)

    made = (*words, "clone", "copy_", "empty_like")
    assert total(got, made) <= total(expected, made)
    # `b*x + (1 - b)*g`, one operation in torch's Adam, are two: a formula's numbers need not add up to one.
    over = tuple(f"{word}_" for word in words)
    assert total(got, made + over) <= total(expected, made + over) + len(mine)


@every_way
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_memory_that_is_shared(name: str, engine: dict[str, bool], dtype: torch.dtype) -> None:
    """A gradient in its parameter's memory, or a state in the gradient's: as if each had its own."""
    shared, apart = ([Parameter(torch.arange(1, 5).to(dtype))] for _ in range(2))
    optimizers = [ours(name)(params, lr=0.1, weight_decay=0.5, **engine) for params in (shared, apart)]
    for _ in range(3):
        apart[0].grad = apart[0].detach().clone()
        shared[0].grad = shared[0].data
        for optimizer in optimizers:
            optimizer.step()
    assert_same(shared, apart, *optimizers, tolerance=1e-10)
    if states := [value for key, value in optimizers[0].state[shared[0]].items() if key != "step"]:
        apart[0].grad, shared[0].grad = states[0].clone(), states[0]
        for optimizer in optimizers:
            optimizer.step()
        assert_same(shared, apart, *optimizers, tolerance=1e-10)


@every_way
def test_one_gradient_for_several_parameters(engine: dict[str, bool]) -> None:
    mine, reference = parameters(["vector", "vector"]), parameters(["vector", "vector"])
    optimizers = oc.Adam(mine, weight_decay=0.1, **engine), torch.optim.Adam(reference, weight_decay=0.1)
    for params in (mine, reference):
        params[0].grad = params[1].grad = torch.arange(7.0)
    for optimizer in optimizers:
        optimizer.step()
    assert_same(mine, reference, *optimizers)
    assert torch.equal(mine[0].grad, torch.arange(7.0))  # type: ignore[arg-type]


class Odd(oc.ElementwiseOptimizer):
    """Results change places, a number may be beyond a dtype's range, a state is the gradient itself."""

    states = ("old", "last")

    @staticmethod
    def coefficients(lr: float, most: float) -> dict[str, float]:
        return {"lr": lr, "most": most}

    @staticmethod
    def rule(p: Any, g: Any, old: Any, last: Any, lr: Any, most: Any) -> Any:
        return p - lr * (g + old) - 0.5 * last, p, g.clamp(-most, most)


@every_way
@pytest.mark.parametrize("most", [0.5, 3.0])
def test_results_that_change_places(engine: dict[str, bool], most: float) -> None:
    param = Parameter(torch.arange(4.0))
    optimizer = Odd([param], dict(lr=0.1, most=most, **engine))
    p, old, last = torch.arange(4.0), torch.zeros(4), torch.zeros(4)
    for step in range(3):
        param.grad = torch.full((4,), 1.0 + step)
        p, old, last = p - 0.1 * (param.grad + old) - 0.5 * last, p, param.grad.clamp(-most, most)
        optimizer.step()
    state = optimizer.state[param]
    torch.testing.assert_close([param.detach(), state["old"], state["last"]], [p, old, last])


@every_way
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_a_number_beyond_the_range(engine: dict[str, bool], dtype: torch.dtype) -> None:
    """torch raises at it in some operations: before anything has been written."""
    params = [Parameter(torch.ones(3, dtype=dtype)) for _ in range(2)]
    optimizer = Odd(params, dict(lr=0.1, most=1e39, **engine))
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="without overflow"):
        optimizer.step()
    assert all(torch.equal(param, torch.ones(3, dtype=dtype)) for param in params)
    assert not optimizer.state
    # Where torch does not raise, the result is what the formula says.
    steep = oc.Momentum(params, lr=1e39, momentum=0.9, **engine)
    steep.step()
    assert all((param == -torch.inf).all() for param in params)


@every_way
@pytest.mark.parametrize("count", [2, 4])
def test_odd_ones_do_not_hinder_the_others(engine: dict[str, bool], count: int) -> None:
    """A complex parameter, one of half precision, one of another age: each as torch has it."""

    def several() -> list[Parameter]:
        odd = [torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.bfloat16)]
        return [*parameters(["vector", "matrix"]), *map(Parameter, odd)][:count]

    mine, reference = several(), several()
    optimizers = oc.Adam(mine, **engine), torch.optim.Adam(reference, foreach=False)
    for step in range(3):
        set_gradients(step, mine, reference)
        if step == 1:
            mine[1].grad = reference[1].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin)
        assert torch.equal(optimizers[0].state[param]["step"], optimizers[1].state[twin]["step"])


def test_a_program_is_forgotten_with_its_rule() -> None:
    param = Parameter(torch.ones(3))
    optimizer = oc.SGD([param], fused=False)
    specialization = optimizer._parsed_rule.specialize(
        (), False, optimizer._coefficients_after(optimizer.param_groups[0])(0)
    )
    assert specialization.program is not None
    texts = [in_place(specialization.program, (), language).text for language in (tensors, lists)]  # type: ignore[arg-type]
    assert "p.add_(g, alpha=" in texts[0]
    assert "torch._foreach_add_(p, g, alpha=" in texts[1]
    gone = weakref.ref(specialization.program)
    del specialization, optimizer
    gc.collect()
    assert gone() is None
