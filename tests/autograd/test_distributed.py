"""DistributedDataParallel and fully_shard inside of ``record``, on two processes, against torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from torchopt_course import autograd

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch is built without gloo", allow_module_level=True)

pytestmark = pytest.mark.processes
START = "fork" if sys.platform == "linux" else "spawn"


def in_two_processes(work: Callable[[int], None], directory: Path) -> None:
    """Raises what either of them raises."""
    mp.start_processes(_joined, args=(work, directory / "meeting"), nprocs=2, start_method=START)


def _joined(rank: int, work: Callable[[int], None], meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        work(rank)
    finally:
        dist.destroy_process_group()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()


def batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(10 + rank)
    return torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])


def steps(model: Any, rank: int, block: Callable[..., Any]) -> list[Any]:
    """Two that add up before they are averaged, and one with all that may be called on the way."""
    (x, y), found, seen = batch(rank), [], []
    weight = model.module[0].weight
    weight.register_hook(lambda g: 2 * g)
    weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    for together in (True, False):
        with model.no_sync() if together else contextlib.nullcontext():
            with block(model):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
        if not together:
            found += [p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=False)
    with block(model):
        loss = F.cross_entropy(model(x), y) + sum(p.square().sum() for p in model.parameters())
        loss.backward()
    return [*found, *[p.grad for p in model.parameters()], *seen]


def average(rank: int) -> None:
    for options in ({}, {"gradient_as_bucket_view": True}, {"bucket_cap_mb": 0.0001}):
        theirs, ours = (
            steps(DistributedDataParallel(net(), **options), rank, block)
            for block in (lambda model: contextlib.nullcontext(), autograd.record)
        )
        torch.testing.assert_close(ours, theirs)


def refuse(rank: int) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    x, y = batch(rank)
    for option in ("find_unused_parameters", "static_graph"):
        model = DistributedDataParallel(net(), **{option: True})
        with pytest.raises(NotImplementedError, match=option), autograd.record():
            model(x)
        with torch.no_grad(), autograd.record():
            model(x)
    model = DistributedDataParallel(net())
    with autograd.record(model):
        loss = F.cross_entropy(model(x), y)
    with pytest.raises(NotImplementedError, match="create_graph"):
        loss.backward(create_graph=True)
    sharded = fully_shard(net())
    with pytest.raises(NotImplementedError, match="inside of record"):
        autograd.record(sharded)
    with pytest.raises(NotImplementedError, match="fully_shard"), autograd.record():
        sharded(x)
    flat = nn.Sequential(FullyShardedDataParallel(net(), device_id=torch.device("cpu")))
    with (
        pytest.raises(NotImplementedError, match="FullyShardedDataParallel inside of record"),
        autograd.record(),
    ):
        flat(x)


@pytest.mark.parametrize("work", [average, refuse])
def test_two_processes(work: Callable[[int], None], tmp_path: Path):
    in_two_processes(work, tmp_path)
