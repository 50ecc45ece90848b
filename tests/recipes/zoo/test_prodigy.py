"""Prodigy takes its authors' steps: a number over all weights that each step renews."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from recipes.zoo import Prodigy

from ...helpers import every_engine

STEPS = 60
SHAPES = ((), (7,), (5, 3), (0, 3), (301,))
OPTIONS: dict[str, Any] = {"betas": (0.8, 0.99), "weight_decay": 0.01, "d0": 1e-3}


def parameters() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def set_gradients(params: list[Parameter], target: list[Tensor], step: int) -> None:
    """Of a bowl, with noise; one parameter has none in every third step."""
    generator = torch.Generator().manual_seed(step)
    for i, (param, goal) in enumerate(zip(params, target, strict=True)):
        noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        param.grad = None if i == 1 and step % 3 == 0 else param.detach() - goal + 0.1 * noise


def paper(params: list[Tensor], grads: list[list[Tensor | None]], lr: float, options: Any) -> list[float]:
    """Algorithm 4 of the paper (with Adam's averages), as it stands; gives d after each step."""
    beta1, beta2 = options["betas"]
    decay, d, r = options["weight_decay"], options["d0"], 0.0
    start = [p.clone() for p in params]
    s, m, v = ([torch.zeros_like(p) for p in params] for _ in range(3))
    found = []
    for step in grads:
        stepped = [i for i, g in enumerate(step) if g is not None]
        r *= math.sqrt(beta2)
        for i in stepped:
            g: Any = step[i]
            r += d / options["d0"] * d * lr * float((g * (start[i] - params[i])).sum())
            s[i] = math.sqrt(beta2) * s[i] + d / options["d0"] * d * lr * g
            m[i] = beta1 * m[i] + (1 - beta1) * d * g
            v[i] = beta2 * v[i] + (1 - beta2) * d * d * g * g
        after = max(d, r / sum(float(s[i].abs().sum()) for i in stepped))
        for i in stepped:
            params[i] -= d * lr * (m[i] / (v[i].sqrt() + after * 1e-8) + decay * params[i])
        d = after
        found.append(d)
    return found


def in_groups(params: list[Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:2]}, {"params": params[2:]}]


@every_engine
def test_the_steps_are_the_papers(engine: dict[str, bool]) -> None:
    params, expected = parameters(), [p.detach().clone() for p in parameters()]
    target = [torch.full_like(p, 3.0) for p in expected]
    optimizer = Prodigy(in_groups(params), **OPTIONS)
    for group in optimizer.param_groups:
        group.update(engine)
    grads: list[list[Tensor | None]] = []
    mine = []
    for step in range(STEPS):
        set_gradients(params, target, step)
        grads.append([None if p.grad is None else p.grad.clone() for p in params])
        optimizer.step()
        assert len({group["d"] for group in optimizer.param_groups}) == 1
        mine.append(optimizer.param_groups[0]["d"])
    d = paper(expected, grads, 1.0, OPTIONS)
    assert mine == pytest.approx(d, rel=1e-9)
    assert d[-1] > 10 * d[0]
    for a, b in zip(params, expected, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-9, atol=1e-9)


def test_the_steps_are_those_of_the_authors_package() -> None:
    prodigyopt = pytest.importorskip("prodigyopt")
    runs = []
    for make in (Prodigy, prodigyopt.Prodigy):
        params = parameters()
        target = [torch.full_like(p, 3.0) for p in params]
        optimizer = make(in_groups(params), **OPTIONS)
        for step in range(STEPS):
            set_gradients(params, target, step)
            optimizer.step()
        runs.append((params, optimizer.param_groups[0]["d"]))
    (mine, d), (theirs, their_d) = runs
    assert d == pytest.approx(their_d, rel=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_a_checkpoint_goes_on_where_it_was() -> None:
    target = [torch.full_like(p, 3.0) for p in parameters()]
    straight = parameters()
    optimizer = Prodigy(in_groups(straight), **OPTIONS)
    for step in range(6):
        set_gradients(straight, target, step)
        optimizer.step()
    resumed = parameters()
    first = Prodigy(in_groups(resumed), **OPTIONS)
    for step in range(4):
        set_gradients(resumed, target, step)
        first.step()
    second = Prodigy(in_groups(resumed))
    second.load_state_dict(first.state_dict())
    assert second.param_groups[1]["d"] == first.param_groups[1]["d"] != OPTIONS["d0"]
    for step in range(4, 6):
        set_gradients(resumed, target, step)
        second.step()
    for a, b in zip(resumed, straight, strict=True):
        assert torch.equal(a, b)
