"""``torch.compile`` of a training step that contains ``step()``: torch's numbers, no more graph breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import torchopt_course as oc

STEPS = 6


def train(make: Callable[..., torch.optim.Optimizer], *, compiled: bool) -> dict[str, Any]:
    """Some steps under a scheduler; what came out, and what the compiler had to do."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    optimizer = make(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    inputs = torch.randn(5, 4, dtype=torch.float64)

    def iteration(inputs: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    # The "eager" backend leaves out code generation: what is traced, broken and compiled again is the same.
    step = torch.compile(iteration, backend="eager") if compiled else iteration
    graphs = []
    for _ in range(STEPS):
        step(inputs)
        scheduler.step()
        graphs.append(counters["stats"]["unique_graphs"])
    weights = torch.cat([param.detach().flatten() for param in model.parameters()])
    return {"weights": weights, "breaks": sum(counters["graph_break"].values()), "graphs": graphs}


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.filterwarnings("ignore")
def test_same_numbers_no_more_breaks_no_recompilation(name: str) -> None:
    plain = train(getattr(torch.optim, name), compiled=False)
    theirs = train(getattr(torch.optim, name), compiled=True)
    mine = train(getattr(oc, name), compiled=True)
    torch.testing.assert_close(mine["weights"], plain["weights"], rtol=1e-12, atol=1e-14)
    assert mine["breaks"] <= theirs["breaks"]
    # All that is compiled is compiled in the first iteration, whatever the scheduler does to `lr`.
    assert mine["graphs"] == [mine["graphs"][0]] * STEPS


@pytest.mark.filterwarnings("ignore")
def test_the_fused_engine_runs_inside() -> None:
    optimizers: list[oc.ElementwiseOptimizer] = []

    def make(*args: Any, **options: Any) -> torch.optim.Optimizer:
        optimizers.append(oc.Adam(*args, **options))
        return optimizers[0]

    train(make, compiled=True)
    assert optimizers[0].engine_report() == "fused CPU engine: 4 parameters, 58 elements"
