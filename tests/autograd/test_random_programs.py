# ruff: noqa: E501
"""A thousand random programs: reuse, broadcasting, views, indexing; every mode agrees with torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd as ag

# Bounded functions, so that two hundred of them one after the other neither explode nor vanish.
ONE: list[Callable[[Any], Any]] = [
    torch.sin, torch.tanh, torch.sigmoid, lambda x: x * 0.5, lambda x: x / (1 + x * x), lambda x: torch.exp(-x * x),
    torch.nn.functional.gelu, torch.nn.functional.silu, lambda x: torch.softmax(x, -1), lambda x: x - x.mean(),
    lambda x: torch.log1p(x * x), lambda x: x.clamp(-1.3, 1.1), lambda x: torch.where(x > 0, x, 0.3 * x),
    lambda x: x.cumsum(-1).tanh(), lambda x: x * x.amax(-1, keepdim=True).cos(),
    lambda x: x + x.sum(0, keepdim=True).sin(), lambda x: torch.sqrt(1 + x * x), lambda x: x.flip(-1),
]  # fmt: skip
VIEWS: list[Callable[[Any], Any]] = [
    lambda x: x.transpose(0, 1), lambda x: x.reshape(-1)[: x.numel()].reshape(x.shape), lambda x: x[:, [0, 2, 2]],
    lambda x: torch.cat([x[1:], x[:1]]), lambda x: x[torch.tensor([2, 0, 0])], lambda x: x[:, 1:2].expand(3, 3),
    lambda x: torch.stack(x.unbind(1), 0), lambda x: x[None, 0].expand(3, 3), lambda x: x.tril() + x[0],
    lambda x: torch.nn.functional.pad(x[1:, :2], (1, 0, 0, 1)),
]  # fmt: skip
TWO: list[Callable[[Any, Any], Any]] = [
    torch.add, torch.sub, lambda a, b: torch.tanh(a) * b, lambda a, b: a / (2 + torch.sin(b)),
    lambda a, b: torch.tanh(a @ b), torch.maximum, torch.minimum, lambda a, b: a[0] + b[:, :1],
    lambda a, b: torch.tanh(torch.einsum("ij,kj->ik", a, b)), lambda a, b: torch.lerp(a, b, 0.3),
]  # fmt: skip


def program(seed: int, size: int) -> Callable[..., Any]:
    """Straight-line code: each step takes any earlier values, 3 by 3 each."""
    chance = random.Random(seed)
    steps: list[tuple[Any, int, int]] = []
    for k in range(size):
        last = k + 1  # the newest value; half of the time used, so that the graph is deep as well as wide
        first = last if chance.random() < 0.5 else chance.randint(0, last)
        steps.append((chance.choice(chance.choice([ONE, VIEWS, TWO])), first, chance.randint(0, last)))

    def run(x: Any, y: Any) -> Any:
        values = [x, y]
        for step, a, b in steps:
            values.append(step(values[a], values[b]) if step in TWO else step(values[a]))
        return torch.tanh(sum(values[-3:])).sum()

    return run


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y, t, s = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    return (x, y), (t, s)


def agree(mine: Any, theirs: Any, what: str) -> None:
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1.0, b.abs().max().item()), what


@pytest.mark.parametrize(
    "block", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 10))]
)
def test_a_hundred_programs(block: int):
    for seed in range(100 * block, 100 * block + 100):
        size = 200 if seed % 50 == 0 else 2 + seed % 19
        run, (x, t) = program(seed, size), inputs(seed)
        leaves = [v.clone().requires_grad_() for v in x]
        y = run(*leaves)
        second = size < 30
        expected = torch.autograd.grad(
            y, leaves, create_graph=second, allow_unused=True, materialize_grads=True
        )
        value, pull = ag.vjp(run, *x)
        agree([value], [y], f"value of program {seed}")
        agree(pull(torch.ones_like(value)), expected, f"gradient of program {seed}")
        slope = sum((g * d).sum() for g, d in zip(expected, t, strict=True))
        agree([ag.jvp(run, x, t)[1]], [slope], f"tangent of program {seed}")
        if second:
            truth = [torch.zeros_like(v) for v in x]
            if slope.requires_grad:
                truth = torch.autograd.grad(slope, leaves, allow_unused=True, materialize_grads=True)
            agree(ag.hvp(run, x, t), truth, f"forward over reverse of program {seed}")
            if seed % 4 == 0:
                over = ag.vjp(ag.grad(run, (0, 1)), *x)[1](t)
                agree(over, truth, f"reverse over reverse of program {seed}")
                around = ag.grad(lambda *v, run=run, t=t: ag.jvp(run, v, t)[1], (0, 1))(*x)
                agree(around, truth, f"reverse over forward of program {seed}")
