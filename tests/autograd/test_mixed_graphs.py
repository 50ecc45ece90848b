"""Whatever requires a gradient counts: programs in which torch's graph and ours mix, against torch alone."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchopt_course import autograd

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


class Setting:
    """A module that is recorded, one that is not, a free parameter and an input, the same each time."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        self.other = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
        self.free = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.x = X.clone().requires_grad_()

    def tensors(self) -> list[Tensor]:
        return [*self.net.parameters(), *self.other.parameters(), self.free, self.x]


class Twice(torch.autograd.Function):
    """Twice x, with a gradient that is not its derivative: 3."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * g * x / x


class SumAndClipped(torch.autograd.Function):
    """Two results; the gradient of both together is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x * 1

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return (g + h).clamp(-0.1, 0.1), g


class Doubled(torch.autograd.Function):
    """Twice x, written into x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g


def penalty(s: Setting) -> Any:
    return s.net(X).square().mean() + 0.1 * sum(p.pow(2).sum() for p in s.net.parameters())


def decoder(s: Setting) -> Any:
    return (s.other(torch.tanh(s.net(s.x))) * s.free).square().mean()


def beside(s: Setting) -> Any:
    return s.net(X).mean() * s.other(X * s.free).sum() + s.free.exp()


def gradient_of_input(s: Setting) -> Any:
    (g,) = torch.autograd.grad(s.net(s.x).sum(), s.x, create_graph=True)
    return (g.norm(dim=1) - 1).square().mean()


def gradients_of_parameters(s: Setting) -> Any:
    loss = s.net(s.x).square().mean()
    return loss + sum(
        g.square().sum() for g in torch.autograd.grad(loss, s.net.parameters(), create_graph=True)
    )


def gradients_in_place_of_the_loss(s: Setting) -> Any:
    s.net(X).square().mean().backward(create_graph=True)
    total = sum(p.grad.square().sum() for p in s.net.parameters())
    s.net.zero_grad()
    return total


def through_torchs_graph_twice(s: Setting) -> Any:
    inner = TORCH["h"](s) * s.free
    (g,) = torch.autograd.grad((s.net(inner) ** 2).sum(), s.free, create_graph=True)
    return g * s.free


def penalty_on_a_gradient_through_torchs_graph(s: Setting) -> Any:
    (g,) = torch.autograd.grad((s.net(TORCH["h"](s)) ** 2).sum(), s.x, create_graph=True)
    return g.square().sum()


def backward_inside(s: Setting) -> Any:
    (s.net(TORCH["h"](s)) * Twice.apply(s.net(X))).sum().backward()
    return s.net(X).sum() * s.free


def user_function(s: Setting) -> Any:
    return (Twice.apply(s.net(s.x)) * s.free).square().sum()


def user_function_of_parameters(s: Setting) -> Any:
    return (Twice.apply(s.net[0].weight) @ s.net(X).T).sum()


def user_function_with_two_results(s: Setting) -> Any:
    a, b = SumAndClipped.apply(s.net(X), s.x)
    return (a * b).sum() + b.sum()


def user_function_in_place(s: Setting) -> Any:
    h = s.net(X)
    view = h[0]
    result = Doubled.apply(h)
    return (result * h * s.free).sum() + view.square().sum()


def checkpointed(s: Setting) -> Any:
    h = checkpoint(s.net, s.x, use_reentrant=True)
    return checkpoint(s.other, h, use_reentrant=True).square().sum()


def checkpointed_not_reentrant(s: Setting) -> Any:
    return s.other(checkpoint(s.net, s.x, use_reentrant=False)).square().sum()


def hooks(s: Setting) -> Any:
    s.net[0].weight.register_hook(lambda g: 2 * g)
    s.other[1].register_full_backward_hook(lambda module, inputs, outputs: (3 * inputs[0],))
    h = s.net(X)
    h.register_hook(lambda g: g.clamp(-0.01, 0.01))
    return s.other(h).square().sum()


def tied_and_frozen(s: Setting) -> Any:
    s.other[0].weight = s.net[0].weight
    s.net[2].weight.requires_grad_(False)
    return s.other(s.net(X)).square().sum()


def parametrized(s: Setting) -> Any:
    torch.manual_seed(1)
    nn.utils.parametrizations.weight_norm(s.net[0])
    nn.utils.parametrizations.spectral_norm(s.net[2])
    return s.net(X).square().sum()


def torch_func(s: Setting) -> Any:
    own = dict(s.net.named_parameters())
    inner = torch.func.grad(lambda p: torch.func.functional_call(s.net, p, (X,)).square().mean())(own)
    return sum(g.square().sum() for g in inner.values()) + s.net(X).mean()


def our_grad_of_a_closure(s: Setting) -> Any:
    grad = autograd.grad if torch.overrides._get_current_function_mode() else torch.func.grad
    return grad(lambda x: s.net(x).square().sum())(s.x).square().sum()


def moving_average(s: Setting) -> Any:
    average = copy.deepcopy(s.net)
    with torch.no_grad():
        for p, q in zip(average.parameters(), s.net.parameters(), strict=True):
            p.mul_(0.9).add_(q, alpha=0.2)
    return (s.net(X) - average(X).detach()).square().sum()


def threads(s: Setting) -> Any:
    out: list[Any] = [None, None]

    def work(i: int) -> None:
        out[i] = s.net(X[i : i + 2]).sum()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return out[0] * out[1] + s.net(X).mean()


def written_into_torchs_tensor(s: Setting) -> Any:
    h = TORCH["h"](s) * 1
    h[0] = s.net(X)[1]
    h.mul_(s.free)
    return h.square().sum()


PROGRAMS = [
    penalty, decoder, beside, gradient_of_input, gradients_of_parameters, gradients_in_place_of_the_loss,
    through_torchs_graph_twice, penalty_on_a_gradient_through_torchs_graph, user_function,
    user_function_of_parameters, user_function_with_two_results, user_function_in_place, checkpointed,
    checkpointed_not_reentrant, hooks, tied_and_frozen, parametrized, torch_func, our_grad_of_a_closure,
    moving_average, threads, written_into_torchs_tensor, backward_inside,
]  # fmt: skip

# What was computed before the block, by torch.
TORCH: dict[str, Callable[[Setting], Tensor]] = {}


@pytest.mark.filterwarnings("ignore:Using backward", "ignore:None of the inputs")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_all_that_requires_a_gradient_gets_what_it_gets_in_torch(program: Callable[[Setting], Any]):
    results = []
    for block in (lambda net: contextlib.nullcontext(), autograd.record):
        setting = Setting()
        before = setting.other[0](setting.x)[:, :3].sin()
        TORCH["h"] = lambda s, before=before: before
        with block(setting.net):
            loss = program(setting)
        loss.backward()
        results.append((loss, setting.tensors()))
    (expected, truths), (loss, tensors) = results
    torch.testing.assert_close(loss.detach(), expected.detach())
    for mine, truth in zip(tensors, truths, strict=True):
        if truth.grad is None:
            assert mine.grad is None
        else:
            torch.testing.assert_close(mine.grad.detach(), truth.grad.detach())
    assert type(setting.free * 2) is Tensor  # after the block all is as before
