"""Scenarios with rules that need whole tensors, or numbers of several, where each rank has a part."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

import torchopt_course
from recipes.zoo.prodigy import Prodigy
from torchopt_course import xp
from torchopt_course.engines.group import Group

from .networks import STEPS, Prepare, assert_close, assert_fused, assert_moved, local, network, train, whole


def one_plan(prepare: Prepare, dtypes: tuple[torch.dtype, ...]) -> None:
    """A plan for each dtype that the network has had, not for each step; what is pruned or moved is gone."""
    model = prepare(network())
    optimizer = torchopt_course.Adam(model.parameters())
    made, decide = [0], Group._decide

    def counted(group: Group, *arguments: Any) -> None:
        made[0] += 1
        decide(group, *arguments)

    Group._decide = counted  # type: ignore[method-assign]
    try:
        for plans, dtype in enumerate(dtypes, 1):
            model.to(dtype)
            for step in range(50):
                inputs = torch.randn(4, 6, dtype=dtype, generator=torch.Generator().manual_seed(step))
                model(inputs).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            assert made[0] == plans, f"{made[0]} plans"
    finally:
        Group._decide = decide  # type: ignore[method-assign]
    assert_fused(optimizer)
    for state in optimizer.state.values():
        for name in state:
            kept = weakref.ref(local(state[name]))
            whole_state = weakref.ref(state[name])
            state[name] = state[name].clone()
            assert whole_state() is None, f"state {name} is kept"
            assert kept() is None, f"the shard of state {name} is kept"


class Lamb(torchopt_course.ElementwiseOptimizer):
    """p -= lr * |p| / |u| * u (You et al., 2020): norms of whole tensors, wherever their parts are."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def coefficients(step: float, lr: float) -> dict[str, float]:
        return {"lr": lr, "unbias": 1 - 0.9**step}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any) -> Any:
        exp_avg = 0.9 * exp_avg + 0.1 * g
        exp_avg_sq = 0.99 * exp_avg_sq + 0.01 * g * g
        u = exp_avg / unbias / (torch.sqrt(exp_avg_sq) + 1e-6)
        return p - lr * p.norm() / u.norm() * u, exp_avg, exp_avg_sq


class Prodigious(Prodigy):
    """Numbers of all tensors, wherever their parts are, and an option that each step renews."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params, d0=0.01)


class OfRows(Lamb):
    """Numbers of rows and columns, which are cut by any of the ways to distribute a tensor."""

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any) -> Any:
        exp_avg = 0.9 * exp_avg + 0.1 * (g - xp.mean(g, over="row"))
        exp_avg_sq = exp_avg_sq + xp.max(g, over="column") * xp.norm(p, over="row")
        u = exp_avg / unbias / xp.norm(exp_avg, over="all")
        size = 1 + xp.norm(u, over="column") + exp_avg_sq**2 + xp.max(g) ** 2  # of all, empty shards too
        return p - lr * u / size, exp_avg, exp_avg_sq


def no_number_of_a_part() -> None:
    """Of what ZeroRedundancyOptimizer gives it no rank can make a number of all tensors."""
    refusal = "none: it would be a number of a part"
    try:
        ZeroRedundancyOptimizer(network().parameters(), optimizer_class=Prodigious)
    except RuntimeError as error:
        refusal = str(error)
    assert "Prodigious looks at all tensors together" in refusal, refusal


def whole_tensors(prepare: Prepare, share: bool, optimizer: Callable[..., Optimizer]) -> None:
    """A rule that needs whole tensors takes the same steps on distributed ones."""
    models = [prepare(network()), network()]
    for model, mine in zip(models, (share, False), strict=True):
        train(model, optimizer(model.parameters()), range(STEPS), share=mine)
    got, expected = map(whole, models)
    assert_moved(expected)
    for (name, value), twin in zip(got.items(), expected.values(), strict=True):
        assert_close(value, twin, name)
