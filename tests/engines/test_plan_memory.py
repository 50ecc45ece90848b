"""A plan and memory that is shared or saved: no two threads in it, and autograd hears of each change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torchopt_course as oc
from torchopt_course.engines.native import frame


def test_parameters_that_come_to_share_memory_are_updated_by_one_thread() -> None:
    """Tied after the plan was made, large enough for several threads: still as torch does it."""
    torch.set_num_threads(2)
    results = []
    for make in (oc.SGD, torch.optim.SGD):
        base = torch.linspace(0, 1, 500_000)
        first, second = nn.Parameter(base[:400_000]), nn.Parameter(base[100_000:].clone())
        for param in (first, second):
            param.grad = torch.ones_like(param)
        optimizer = make([first, second], lr=0.1, weight_decay=0.5)  # type: ignore[operator]
        optimizer.step()
        if make is oc.SGD:
            assert threads_used(optimizer) == [2]
        second.data = base[100_000:]
        optimizer.step()
        if make is oc.SGD:
            assert threads_used(optimizer) == [1], "threads would race"
        results.append(base)
    torch.testing.assert_close(*results)


def threads_used(optimizer: oc.ElementwiseOptimizer) -> list[int]:
    """By each bucket, in the last step."""
    groups = optimizer._stepper.groups
    return [int(bucket.guards.frame[frame.THREADS]) for group in groups for bucket in group.buckets]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_gradient_that_comes_to_share_memory_with_a_parameter(prepared: bool) -> None:
    """One parameter's gradient is another parameter: its new value counts, or the old one, as with torch."""
    torch.set_num_threads(2)
    results = []
    for make in (oc.SGD, torch.optim.SGD):
        params = [nn.Parameter(torch.linspace(0, 1, 200_000) + i) for i in range(2)]
        optimizer = make(params, lr=0.1)  # type: ignore[operator]
        for _ in range(3 if prepared else 1):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
        params[1].grad = params[0].detach()
        params[0].grad = torch.ones_like(params[0])
        optimizer.step()
        results.append(params)
    for mine, theirs_ in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs_)


def saved_for_backward(optimizer_class: type[torch.optim.Optimizer], what: str) -> None:
    weights = nn.Parameter(torch.ones(3))
    optimizer = optimizer_class([weights], lr=0.1)  # type: ignore[call-arg]
    weights.grad = torch.ones(3)
    optimizer.step()
    factor: Tensor = weights if what == "parameter" else optimizer.state[weights][what]
    other = torch.ones(3, requires_grad=True)
    loss = (other * factor).sum()
    optimizer.step()
    loss.backward()


@pytest.mark.parametrize("what", ["parameter", "exp_avg", "exp_avg_sq", "step"])
@pytest.mark.parametrize("make", [oc.Adam, torch.optim.Adam], ids=["ours", "torch"])
def test_change_between_forward_and_backward_is_reported(
    make: type[torch.optim.Optimizer], what: str
) -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved_for_backward(make, what)
