"""Parameters in shared memory, stepped from four processes that were forked or spawned.

In turns, the four are one optimizer: parameters and states, all in shared memory, must end where one process
with torch's optimizer ends. Without turns (Hogwild: Recht et al., 2011) the end is only known for a problem
that converges whatever the order is.
"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.multiprocessing as mp

import torchopt_course
from tests.distributed import hogwild
from tests.helpers import assert_same

pytestmark = [pytest.mark.slow, pytest.mark.processes]

START_METHODS = [
    pytest.param(
        "fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="fork is safe on Linux only")
    ),
    "spawn",
]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_shared_parameters_are_stepped_from_four_processes(start_method: str) -> None:
    context = mp.get_context(start_method)
    tasks = []
    for name, options in hogwild.OPTIONS.items():
        params = hogwild.parameters()
        optimizer = getattr(torchopt_course, name)(params, **options)
        hogwild.step(params, optimizer, turn=-1)  # makes the states
        for param in params:
            param.grad = None
            for tensor in (param, *optimizer.state[param].values()):
                tensor.share_memory_()
        tasks.append((params, optimizer))
    raced = [param.detach().share_memory_().requires_grad_() for param in hogwild.parameters()]
    may_step = [context.Semaphore(int(rank == 0)) for rank in range(hogwild.PROCESSES)]
    start = context.Barrier(hogwild.PROCESSES)

    mp.start_processes(  # raises what any of them raises
        hogwild.work,
        args=(tasks, may_step, raced, start),
        nprocs=hogwild.PROCESSES,
        start_method=start_method,
    )

    for (name, options), (params, optimizer) in zip(hogwild.OPTIONS.items(), tasks, strict=True):
        twins = hogwild.parameters()
        other = getattr(torch.optim, name)(twins, **options)
        for turn in range(-1, hogwild.TURNS):
            hogwild.step(twins, other, turn)
        assert_same(params, twins, optimizer, other)
        # The parent goes on with what its children left.
        for theirs in ((params, optimizer), (twins, other)):
            hogwild.step(*theirs, turn=hogwild.TURNS)
        assert_same(params, twins, optimizer, other)
    for param in raced:
        torch.testing.assert_close(param.detach(), torch.full_like(param, hogwild.TARGET), atol=1e-3, rtol=0)
