"""Modules that torch wraps or remakes, and its transforms, within ``record``: the gradients are torch's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from torchopt_course import autograd

Y = torch.tensor([0, 1, 1, 0, 1])


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2)).double()


def changed(change: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = net()
        change(model[0])
        return model

    return make


def cached(model: nn.Module, x: Tensor) -> Tensor:
    with parametrize.cached():
        return model(x) + model(2 * x)


def of_doubled(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.functional_call(model, {name: 2 * p for name, p in model.named_parameters()}, (x,))


def times_gradient(model: nn.Module, x: Tensor) -> Tensor:
    def loss(weights: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), Y)

    gradient = torch.func.grad(loss)(dict(model.named_parameters()))
    return model(x) * sum(g.square().sum() for g in gradient.values())


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "jit.script": (lambda: torch.jit.script(net()), nn.Module.__call__),
    "jit.trace": (lambda: torch.jit.trace(net(), torch.ones(5, 3).double()), nn.Module.__call__),
    "fx": (lambda: torch.fx.symbolic_trace(net()), nn.Module.__call__),
    "DataParallel": (lambda: nn.DataParallel(net()), nn.Module.__call__),
    "lazy": (lazy, nn.Module.__call__),
    "weight_norm": (changed(parametrizations.weight_norm), nn.Module.__call__),
    "spectral_norm": (changed(parametrizations.spectral_norm), nn.Module.__call__),
    "parametrize.cached": (changed(parametrizations.weight_norm), cached),
    "functional_call": (net, of_doubled),
    "func.grad": (net, times_gradient),
    "vmap of a variable": (net, lambda model, x: torch.vmap(lambda row: row * row)(model(x))),
    "vmap of a module": (net, lambda model, x: torch.vmap(model)(x)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_torch(name: str):
    make, call = CASES[name]

    def gradients(block: Callable[[], Any]) -> list[Any]:
        torch.manual_seed(0)
        model, x = make(), torch.randn(5, 3, dtype=torch.float64)
        with block():
            loss = F.cross_entropy(call(model, x), Y)
        loss.backward()
        return [p.grad for p in model.parameters()]

    torch.testing.assert_close(gradients(autograd.record), gradients(contextlib.nullcontext))
