"""Whatever follows operations (function transforms, modes, forward-mode AD) sees a step as torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import Parameter
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import torchopt_course as oc

from ..helpers import ENGINES, engines_used, every_engine, ours, theirs

POINT = torch.tensor([5.0, -1.0, 0.5], dtype=torch.float64)
GRADIENT = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
ENGINES_AND_DEFAULT = {"default": {}, "fused": ENGINES["cpu"], "foreach": ENGINES["foreach"]}
NAMES = ["Momentum", "Adagrad", "Adam"]


def step_of(make: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Two steps as a pure function."""

    def step(x: Tensor, g: Tensor) -> Tensor:
        p = x.clone()
        optimizer = make([p], lr=0.1, **options)
        for _ in range(2):
            p.grad = g
            optimizer.step()
        return p

    return step


class Module(torch.nn.Module):
    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return self.step(x, g)


OTHER = torch.zeros_like(POINT), torch.ones_like(POINT)
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "make_fx": lambda f: make_fx(f)(*OTHER)(POINT, GRADIENT),
    "make_fx fake": lambda f: make_fx(f, tracing_mode="fake")(*OTHER)(POINT, GRADIENT),
    "make_fx symbolic": lambda f: make_fx(f, tracing_mode="symbolic")(*OTHER)(POINT, GRADIENT),
    "export": lambda f: torch.export.export(Module(f), OTHER, strict=False).module()(POINT, GRADIENT),
    "functionalize": lambda f: torch.func.functionalize(f)(POINT, GRADIENT),
    "vmap": lambda f: torch.func.vmap(f)(torch.stack([POINT, GRADIENT]), torch.stack([GRADIENT, POINT])),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("options", ENGINES_AND_DEFAULT.values(), ids=ENGINES_AND_DEFAULT)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_followed_as_torchs(
    name: str, options: dict[str, bool], transform: Callable[[Any], Any]
) -> None:
    """Whatever engine is asked for; the truth is torch's step as it runs by itself."""
    expected = step_of(theirs(name))(POINT, GRADIENT)
    result = transform(step_of(ours(name), **options))
    torch.testing.assert_close(result[0] if result.dim() > 1 else result, expected)


def dual(f: Callable[[Tensor], Tensor]) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(POINT, torch.ones_like(POINT)))).tangent
    assert tangent is not None
    return tangent


@pytest.mark.parametrize(
    "derivative",
    [dual, lambda f: torch.func.jvp(f, (POINT,), (torch.ones_like(POINT),))[1]],
    ids=["forward AD", "jvp"],
)
@pytest.mark.parametrize("options", ENGINES_AND_DEFAULT.values(), ids=ENGINES_AND_DEFAULT)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_differentiated_forwards(
    name: str, options: dict[str, bool], derivative: Callable[[Any], Tensor]
) -> None:
    """Finite differences are the truth: torch's momentum forgets the tangent of the first gradient."""
    step, h = step_of(theirs(name)), 1e-6
    expected = (step(POINT + h, GRADIENT * (POINT + h)) - step(POINT - h, GRADIENT * (POINT - h))) / (2 * h)
    mine = step_of(ours(name), **options)
    torch.testing.assert_close(derivative(lambda x: mine(x, GRADIENT * x)), expected, rtol=1e-6, atol=1e-8)


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


@every_engine
def test_a_mode_comes_and_goes(engine: dict[str, bool]) -> None:
    """In the middle of a run; under the mode there are operations, without it the engine that was chosen."""
    weights = Parameter(POINT.clone())
    optimizer = oc.Adam([weights], lr=0.1, **engine)
    twin = Parameter(POINT.clone())
    reference = torch.optim.Adam([twin], lr=0.1)
    used = []
    for step in range(6):
        weights.grad, twin.grad = GRADIENT.clone(), GRADIENT.clone()
        if step in (2, 3):
            with Count() as mode, FlopCounterMode(display=False):
                optimizer.step()
            assert mode.calls > 0
            assert "dispatch mode" in optimizer.engine_report()
        else:
            optimizer.step()
            used.append(engines_used(optimizer))
        reference.step()
    torch.testing.assert_close(weights, twin)
    assert all(each == used[0] for each in used)


@pytest.mark.parametrize("options", ENGINES_AND_DEFAULT.values(), ids=ENGINES_AND_DEFAULT)
@pytest.mark.parametrize("name", NAMES)
def test_wrapper_subclass(name: str, options: dict[str, bool]) -> None:
    """A parameter without memory of its own, as quantized ones are."""

    def run(make: Callable[..., torch.optim.Optimizer], **options: Any) -> Parameter:
        p = Parameter(TwoTensor(POINT.clone(), 2 * POINT))
        optimizer = make([p], lr=0.1, **options)
        for _ in range(3):
            p.grad = TwoTensor(GRADIENT.clone(), -GRADIENT)
            optimizer.step()
        return p

    if options.get("fused"):
        with pytest.raises(RuntimeError, match="it is a TwoTensor"):
            run(ours(name), **options)
        return
    mine, twin = run(ours(name), **options), run(theirs(name), foreach=False)
    torch.testing.assert_close(mine.a, twin.a)
    torch.testing.assert_close(mine.b, twin.b)
