"""A small network, the ways to divide it, the same data for any number of processes, and comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import torchopt_course

TOLERANCE = 1e-10
STEPS = 4
MODULES = {"ours": torchopt_course, "torch": torch.optim}
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adagrad": {"lr": 0.05, "lr_decay": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Adam": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.01},
}
Prepare = Callable[[nn.Sequential], nn.Module]


def network() -> nn.Sequential:
    """Its last tensors have three rows: of two shards one is short, of four one is empty."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def train(model: nn.Module, optimizer: Optimizer, steps: Iterable[int], *, share: bool = True) -> None:
    """Each rank gets its share of a batch, or, where it is the network that is divided, all of it."""
    mine = slice(dist.get_rank(), None, dist.get_world_size()) if share else slice(None)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        targets = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        # Every other time gradients are zeroed and stay where they are in memory.
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        nn.functional.mse_loss(model(inputs[mine]), targets[mine]).backward()
        for layer in model.children():  # torch cannot clip plain tensors and DTensors together
            if not isinstance(layer, nn.Tanh):
                nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()


def data_parallel(model: nn.Sequential) -> nn.Module:
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def sharded(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def offloaded(model: nn.Sequential) -> nn.Module:
    """Where there is a GPU, it computes, and parameters, gradients and states stay on the host."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    policy = CPUOffloadPolicy(pin_memory=False)
    fully_shard(model[0], mesh=mesh, offload_policy=policy)
    return fully_shard(model, mesh=mesh, offload_policy=policy)


def tensor_parallel(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def half_tensor_parallel(model: nn.Sequential) -> nn.Module:
    """Plain parameters and DTensors in one parameter group."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    gather = ColwiseParallel(output_layouts=Replicate())
    return parallelize_module(model, mesh, {"0": gather})


def divided_twice(model: nn.Sequential) -> nn.Module:
    """Tensor-parallel in pairs, and each part sharded over the two pairs."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["data"])


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, put together from all ranks; every rank must call it."""
    return {
        name: param.full_tensor() if isinstance(param, DTensor) else param.detach().clone()
        for name, param in model.named_parameters()
    }


def assert_close(got: Tensor, expected: Tensor, what: str) -> None:
    assert got.shape == expected.shape, f"{what}: {got.shape} instead of {expected.shape}"
    if expected.numel():
        difference = (got - expected).abs().max().item()
        assert difference <= TOLERANCE * (expected.abs().max().item() or 1.0), (
            f"{what} is off by {difference}"
        )


def assert_moved(parameters: dict[str, Tensor]) -> None:
    """The training did something, so that agreement means something."""
    for before, after in zip(network().parameters(), parameters.values(), strict=True):
        assert (after - before).abs().max() > 1e-3


def assert_same(mine: nn.Module, optimizer: Optimizer, reference: nn.Module, other: Optimizer) -> None:
    """Parameters and states of this rank agree with torch's: kinds, placements, dtypes, values."""
    for (name, param), twin in zip(mine.named_parameters(), reference.parameters(), strict=True):
        got = {"parameter": param.detach(), **optimizer.state.get(param, {})}
        expected = {"parameter": twin.detach(), **other.state.get(twin, {})}
        assert set(got) == set(expected), f"states of {name}: {sorted(got)}, not {sorted(expected)}"
        for key, value in expected.items():
            what = f"{key} of {name}"
            assert type(got[key]) is type(value), f"{what} is a {type(got[key]).__name__}"
            assert got[key].dtype == value.dtype, f"{what} is of dtype {got[key].dtype}"
            assert got[key].shape == value.shape, f"{what} is of shape {got[key].shape}"
            if isinstance(value, DTensor):
                assert got[key].placements == value.placements, f"{what} is placed as {got[key].placements}"
            assert_close(local(got[key]), local(value), what)


def assert_fused(optimizer: Optimizer) -> None:
    """The fused CPU engine took all parameters of this rank, or their local shards."""
    report = optimizer.engine_report()
    taken = sum(map(int, re.findall(r"fused CPU engine: (\d+) parameter", report)))
    expected = sum(len(group["params"]) for group in optimizer.param_groups)
    assert taken == expected, f"the fused CPU engine took {taken} of {expected}: {report}"


# How the network is divided, whether the batch is, and what the checkpoint looks like.
KINDS: dict[str, tuple[Prepare, bool, StateDictOptions]] = {
    "fully_shard": (sharded, True, StateDictOptions()),
    "tensor-parallel": (tensor_parallel, False, StateDictOptions(flatten_optimizer_state_dict=True)),
}
