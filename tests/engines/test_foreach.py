"""The foreach engine: few operations, little memory, the gradient left alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import torchopt_course as oc
from torchopt_course.engines.operations import foreach

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs


class Watch(TorchDispatchMode):
    """Counts operations, and the largest sum of bytes of tensors that were made inside and still live."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.peak = 0
        self._alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        import weakref

        result = func(*args, **(kwargs or {}))
        self.operations[func.overloadpacket.__name__] += 1
        if "_foreach" in str(func):
            for made in result or ():
                storage = made.untyped_storage()
                self._alive[id(storage._cdata)] = (weakref.ref(made), storage.nbytes())
        living = {key: item for key, item in self._alive.items() if item[0]() is not None}
        self._alive = living
        self.peak = max(self.peak, sum(size for _, size in living.values()))
        return result


def watched(make: Any, options: dict[str, Any]) -> tuple[Watch, int]:
    params = [nn.Parameter(torch.ones(300, 1000)) for _ in range(8)]
    optimizer = make(params, foreach=True, **options)
    for _ in range(2):  # the second step is the usual one
        set_gradients(0, params)
        with Watch() as watch:
            optimizer.step()
    return watch, sum(param.nbytes for param in params)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in NAMES),
        ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
        ("RMSprop", {"centered": True, "momentum": 0.9}),
        ("Adagrad", {"weight_decay": 0.1}),
    ],
    ids=str,
)
def test_memory_stays_below_torchs(name: str, options: dict[str, Any]) -> None:
    mine, total = watched(ours(name), options)
    reference, _ = watched(theirs(name), options)
    assert mine.peak <= reference.peak
    assert mine.peak < total
    if name not in ("SGD", "Momentum"):
        assert reference.peak > total / 2, "torch was not watched"


@pytest.mark.parametrize("name", NAMES)
def test_portions_are_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that are cut, and tensors: where nothing is left over, in the midst, along a dimension of one."""
    monkeypatch.setattr(foreach, "LEAST_PORTION", 40)
    monkeypatch.setattr(foreach, "PORTION", 0)
    kinds = ["vector", "matrix", "scalar", "channels_last", "empty", "one", "transposed", "sliced"]
    mine, reference = parameters(kinds, torch.float64), parameters(kinds, torch.float64)
    mine[1].data, reference[1].data = (torch.arange(90.0, dtype=torch.float64).view(1, 90) for _ in range(2))
    optimizers = ours(name)(mine, lr=0.1, foreach=True), theirs(name)(reference, lr=0.1, foreach=False)
    for step in range(3):
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            optimizer.step()
        assert_same(mine, reference, *optimizers)


@pytest.mark.parametrize(("name", "most"), [("SGD", 1), ("Momentum", 3), ("Adam", 8), ("RMSprop", 5)])
def test_operations_on_small_models(name: str, most: int) -> None:
    """Products and quotients are added in one operation, and nothing is copied: as torch by hand."""
    params = parameters(["vector", "matrix"])
    optimizer = ours(name)(params, foreach=True)
    for _ in range(2):
        set_gradients(0, params)
        with Watch() as watch:
            optimizer.step()
    lists = {name: n for name, n in watch.operations.items() if name.startswith("_foreach")}
    assert sum(lists.values()) <= most, lists


def test_torch_overwrites_the_gradient_and_we_do_not() -> None:
    for make, same in ((torch.optim.SGD, False), (oc.SGD, True)):
        param = nn.Parameter(torch.ones(3))
        optimizer = make([param], momentum=0.9, nesterov=True, foreach=True)
        param.grad = torch.ones(3)
        optimizer.step()
        assert torch.equal(param.grad, torch.ones(3)) is same


def test_a_function_that_returns_its_argument_itself() -> None:
    """``+x`` is x: what is computed in its memory must not destroy x, nor be destroyed with it."""

    class Plus(oc.ElementwiseOptimizer):
        states = ("first", "second")

        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

        @staticmethod
        def rule(p: Any, g: Any, first: Any, second: Any, lr: Any) -> Any:
            doubled = (+p) * 2 + lr * g
            return p + doubled, g, +(3 * first) + second

    results = []
    for engine in ({"foreach": True}, {"fused": False}):
        param = nn.Parameter(torch.arange(3.0))
        optimizer = Plus([param], {"lr": 0.5, **engine})
        for step in range(3):
            param.grad = torch.full((3,), 1.0 + step)
            optimizer.step()
        results.append([param.detach(), *(optimizer.state[param][name] for name in Plus.states)])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected)
