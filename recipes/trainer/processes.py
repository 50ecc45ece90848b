"""One process or many: `torchrun --nproc-per-node 2 recipes/train.py` trains on both at once.

Every process takes its share of each batch and has the same weights before and after the step
(DistributedDataParallel), or its part of them (`--shard`, FSDP2). The first one logs and saves. Checkpoints
hold whole tensors, so that any number of processes can go on from them. They are put together here and not by
`torch.distributed.checkpoint.state_dict`: to have states to gather it takes a step with zero gradients, which
Adam counts as one of its own (torch 2.14), and LBFGS refuses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class World:
    """All processes of a training, seen from one of them."""

    rank: int = 0
    size: int = 1

    def sum(self, *numbers: float, device: torch.device) -> list[float]:
        """Every number summed over the processes."""
        if self.size == 1:
            return list(numbers)
        together = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(together)
        return together.tolist()

    def from_first(self, function: Callable[[], Answer]) -> Answer:
        """What the first process computes, for all; if it fails, all fail alike instead of waiting for it."""
        if self.size == 1:
            return function()
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = function()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]  # type: ignore[no-any-return]

    def spread(self, model: nn.Module, device: torch.device, shard: bool, offload: bool) -> nn.Module:
        """What to call instead of the model, so that `backward()` averages the gradients of all processes."""
        if self.size == 1:
            return model
        if not shard:
            return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
        mesh = init_device_mesh(device.type, (self.size,))
        policy = CPUOffloadPolicy() if offload else OffloadPolicy()
        for part in (*model.children(), model):
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh, offload_policy=policy)
        return model


ALONE = World()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun has started this process in, or a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # gloo for tensors on the host, of which there are some with --offload.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> torch.device:
    """The device of this process: with `cuda` each process of a machine takes another."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which every process holds a part. All processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_whole_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    model_state: dict[str, Any],
    optimizer_state: dict[str, Any],
) -> None:
    """Load states of whole tensors, of which every process takes its part."""
    here = model.state_dict()
    model.load_state_dict({name: part_like(value, here.get(name)) for name, value in model_state.items()})
    params: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        index: {name: part_like(value, params[index]) for name, value in values.items()}
        for index, values in optimizer_state["state"].items()
    }
    optimizer.load_state_dict({**optimizer_state, "state": parts})


def part_like(value: Any, like: Any) -> Any:
    """This process's part of `value`, cut as `like` is cut."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        # Every process has the whole tensor: nothing needs to be sent.
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value
