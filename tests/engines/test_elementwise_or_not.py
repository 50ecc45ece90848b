"""Which functions of torch are elementwise? Each one is asked; what is not, never sees a part of a tensor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch as xp
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import get_overridable_functions, resolve_name

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.rule.placeholders import RuleError

Function = Callable[..., Any]


def optimizer_of(rule: Function, params: Any, **options: Any) -> ElementwiseOptimizer:
    class User(ElementwiseOptimizer):
        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

    User.rule = staticmethod(rule)  # type: ignore[assignment]
    return User(params, {"lr": 0.25, **options})


# They would change something for all that follows, or read from somewhere else.
NOT_CALLED = {
    "empty_like",
    "save",
    "load",
    "set_default_dtype",
    "manual_seed",
    "seed",
    "set_printoptions",
    "compile",
}


def every_function() -> Iterator[Function]:
    """All that torch lets a tensor be given to, methods included."""
    for home, functions in get_overridable_functions().items():
        for function in functions:
            name = getattr(function, "__name__", "_")
            if not name.startswith("_") and name not in NOT_CALLED and getattr(home, "__name__", "") in HOMES:
                yield function


HOMES = ("torch", "Tensor", "torch.nn.functional", "torch.special", "torch.linalg", "torch.fft")
CALLS: dict[str, Function] = {
    "f(g)": lambda f, p, g: f(g),
    "f(g, p)": lambda f, p, g: f(g, p),
}


def outcome(function: Function, call: str, p: Tensor, g: Tensor) -> Tensor | None:
    """What torch makes of it: a tensor like the parameter, or nothing that could be a new parameter."""
    torch.manual_seed(0)
    try:
        result = CALLS[call](function, p.clone(), g.clone())
    except Exception:
        return None
    return result if type(result) is Tensor and result.shape == p.shape and not result.is_complex() else None


def calling(function: Function, call: Function) -> Function:
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return call(function, p, g)

    return rule


@pytest.mark.parametrize("call", ["f(g)", pytest.param("f(g, p)", marks=pytest.mark.slow)])
def test_every_function_of_torch(call: str) -> None:
    """What runs in parts is the same in parts; what a kernel runs is what torch computes of whole tensors."""
    p = torch.linspace(0.1, 0.9, 16, dtype=torch.float64).reshape(4, 4)
    g = p.flip(0, 1) - 0.47
    wrong, elementwise, kernels, whole = [], 0, 0, 0
    for function in every_function():
        warnings.simplefilter("ignore")
        expected = outcome(function, call, p, g)
        if expected is None:
            continue
        name = f"{resolve_name(function)} as {call}"
        param = nn.Parameter(p.clone())
        param.grad = g.clone()
        try:
            optimizer = optimizer_of(calling(function, CALLS[call]), [param])
            torch.manual_seed(0)
            optimizer.step()
        except RuleError:
            continue  # refused by name: it writes into its arguments
        if not torch.equal(g, param.grad):
            wrong.append(f"{name} wrote to the gradient")
        if not torch.allclose(param.detach(), expected.double(), rtol=1e-12, atol=1e-300, equal_nan=True):
            wrong.append(f"{name} gave something else on the {optimizer.engine_report()}")
        (specialization,) = optimizer._parsed_rule._variants.values()
        kernels += specialization.program is not None
        if specialization.is_elementwise:
            elementwise += 1
            parts = [outcome(function, call, p[i : i + 1, :3], g[i : i + 1, :3]) for i in range(4)]
            if not all(  # up to rounding, for torch takes several numbers at a time where it can
                part is not None and torch.allclose(part, row, rtol=1e-12, atol=0, equal_nan=True)
                for part, row in zip(parts, expected[:, :3].split(1), strict=True)
            ):
                wrong.append(f"{name} is not elementwise, but passes for it")
        else:
            whole += 1
            assert "eager engine" in optimizer.engine_report()
            assert "User.rule" in optimizer.engine_report()
    assert not wrong
    assert min(elementwise, kernels, whole) > 10, "the test saw too little"


# -- what is not elementwise runs on whole tensors, or not at all --------------------------------------------

WHOLE: dict[str, Function] = {
    "a method": lambda p, g, lr: p - lr * g / (1 + g.std()),
    "a function of xp": lambda p, g, lr: p - lr * g / (1 + xp.median(g)),
    "a product of matrices": lambda p, g, lr: p - lr * (g @ (g.mT @ g)),
    "a shape": lambda p, g, lr: p - lr * g / (g.shape[0] if g.ndim > 1 else 1),
    "a part": lambda p, g, lr: p - lr * (g - g[:1]),
    "an order": lambda p, g, lr: p - lr * xp.sort(g, dim=-1)[0],
    "a decision": lambda p, g, lr: p - lr * g / n if (n := g.norm()) > 1 else p - g,
    "sizes": lambda p, g, lr: p - lr * g / (len(g) * g.numel()),
    "a function of nn": lambda p, g, lr: p - lr * xp.softmax(g, dim=0),
    "a sum that runs": lambda p, g, lr: p - lr * g.cumsum(0),
    "a value of a coefficient": lambda p, g, lr: p - lr * g if lr > 0.1 else p,
    "a text": lambda p, g, lr: p - len(f"{lr}") * g,
    "a key": lambda p, g, lr: p - {0.25: 2.0}.get(lr, 1.0) * g,
    "a tensor of its own": lambda p, g, lr: p - xp.linspace(0, 1, 3) * g,
}
# Kernels know these, but they need the whole tensor as well.
REDUCING: dict[str, Function] = {
    "a norm": lambda p, g, lr: p - lr * g / g.norm(),
    "a mean": lambda p, g, lr: p - lr * g / xp.sqrt(xp.mean(g * g)),
    "others": lambda p, g, lr: p - xp.where(xp.any(g > 0), xp.max(g), xp.min(p)) * g * xp.count_nonzero(g),
}
every_whole_rule = pytest.mark.parametrize(
    "rule", [*WHOLE.values(), *REDUCING.values()], ids=[*WHOLE, *REDUCING]
)
RULES = {"elementwise": lambda p, g, lr: p - lr * xp.erf(g)} | WHOLE


@pytest.mark.parametrize("engine", [{}, {"fused": False}, {"foreach": True}], ids=str)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_runs_as_it_stands(rule: Function, engine: dict[str, bool]) -> None:
    """With the reason, also where lists would cut tensors into portions."""
    params = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (3, 3), (70_000, 3))]
    expected = []
    for param in params:
        param.grad = torch.randn_like(param)
        expected.append(rule(param.detach(), param.grad, 0.25))
    optimizer = optimizer_of(rule, params, **engine)
    optimizer.step()
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value)
    assert optimizer.engine_report().startswith(
        "eager engine: 3 parameters, 210,021 elements, because User.rule"
    )
    with pytest.raises(RuntimeError, match=r"fused=True, but .*: User\.rule"):
        optimizer_of(rule, params, fused=True).step()


@every_whole_rule
def test_refuses_sparse_and_complex_gradients(rule: Function) -> None:
    param = nn.Parameter(torch.ones(3, 2))
    optimizer = optimizer_of(rule, [param], fused=False)
    optimizer.sparse_gradients = lambda group: "rows"  # type: ignore[method-assign]
    param.grad = torch.sparse_coo_tensor([[0, 2]], torch.ones(2, 2), (3, 2))
    with pytest.raises(
        RuntimeError, match=r"User\.rule .*but a gradient is sparse, and only its rows are visited"
    ):
        optimizer.step()
    param = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match=r"User\.rule .*but a parameter is complex, and is seen as pairs"):
        optimizer_of(rule, [param], fused=False).step()


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[Any]:
    """A mesh of this process alone: its tensors are distributed all the same."""
    from torch.distributed.tensor import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_distributed_tensors(one_process: Any) -> None:
    """A process has only a shard of each: enough for elementwise rules; torch runs others on the whole."""
    from torch.distributed.tensor import Shard, distribute_tensor

    def step(rule: Function, **engine: bool) -> Tensor:
        param = nn.Parameter(distribute_tensor(torch.ones(3, 3), one_process, [Shard(0)]))
        param.grad = distribute_tensor(torch.full((3, 3), 0.5), one_process, [Shard(0)])
        optimizer_of(rule, [param], **engine).step()
        return param.detach().full_tensor()  # type: ignore[no-any-return, operator]

    for engine in ({}, {"fused": False}, {"foreach": True}):
        expected = 1 - 0.25 * torch.erf(torch.full((3, 3), 0.5))
        torch.testing.assert_close(step(RULES["elementwise"], **engine), expected)
        for name, rule in (WHOLE | REDUCING).items():
            if name == "a tensor of its own":
                with pytest.raises(RuntimeError, match=r"User\.rule\(.*mixed torch\.Tensor and DTensor"):
                    step(rule, **engine)
                continue
            whole = rule(torch.ones(3, 3), torch.full((3, 3), 0.5), 0.25)
            torch.testing.assert_close(step(rule, **engine), whole)
