"""Scenarios in which torch's optimizer takes the same steps: trained alike, the two end in the same place.

They work first and compare last: no rank waits for one whose comparison has failed.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

import torchopt_course

from .networks import (
    MODULES,
    OPTIONS,
    STEPS,
    Prepare,
    assert_close,
    assert_fused,
    assert_moved,
    assert_same,
    data_parallel,
    network,
    tensor_parallel,
    train,
    whole,
)


def agree_with_torch(optimizer_name: str, prepare: Prepare, share: bool, directory: Path) -> None:
    """Trained alike, ours and torch's are in the same place, and ours came there on the fused engine."""
    runs = []
    for module in MODULES.values():
        model = prepare(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=share)
        runs += [model, optimizer]
    assert_moved(whole(runs[0]))
    assert_same(*runs)
    assert_fused(runs[1])
    if prepare is data_parallel:
        for param in runs[0].parameters():
            assert param.grad.untyped_storage().nbytes() > param.nbytes, "no view of a bucket"


def placed_otherwise(optimizer_name: str, what: str, directory: Path) -> None:
    """Gradients or states that are not spread over the processes as their parameter is."""
    ends = []
    for module in MODULES.values():
        model = tensor_parallel(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=False)
        if what == "gradients":
            optimizer.register_step_pre_hook(replicate_gradients)
        else:
            for state in optimizer.state.values():
                state.update({name: replicated(value) for name, value in state.items()})
        train(model, optimizer, range(STEPS, 2 * STEPS), share=False)
        ends.append(whole(model))
    for name, value in ends[1].items():
        assert_close(ends[0][name], value, name)


def replicated(tensor: Tensor) -> Tensor:
    return tensor.redistribute(placements=[Replicate()]) if isinstance(tensor, DTensor) else tensor


def replicate_gradients(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = replicated(param.grad)


def stale_backward(module_name: str, optimizer_name: str, directory: Path) -> None:
    """A step between forward and backward is noticed by autograd, also when it wrote to local shards only."""
    model = tensor_parallel(network())
    optimizer = getattr(MODULES[module_name], optimizer_name)(model.parameters())
    train(model, optimizer, [0], share=False)
    loss = model(torch.ones(2, 6, dtype=torch.float64)).sum()
    optimizer.step()
    complaint = ""
    try:
        loss.backward()
    except RuntimeError as error:
        complaint = str(error)
    assert "modified by an inplace operation" in complaint, complaint


def zero_redundancy(optimizer_name: str, bucket_view: bool, directory: Path) -> None:
    """Each rank steps its part; the states, collected from all ranks, go on in one plain optimizer."""
    options = OPTIONS[optimizer_name]
    runs, states = [], []
    for module in MODULES.values():
        model = data_parallel(network())
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(),
            optimizer_class=getattr(module, optimizer_name),
            parameters_as_bucket_view=bucket_view,
            **options,
        )
        train(model, optimizer, range(STEPS))
        optimizer.consolidate_state_dict(to=0)
        state = [deepcopy(optimizer.state_dict()) if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(state)
        states.append((whole(model), state[0]))
        train(model, optimizer, range(STEPS, 2 * STEPS))
        runs.append((model, optimizer))
    (mine, optimizer), (reference, _) = runs
    resumed = [
        resume_plainly(getattr(torch.optim, optimizer_name), options, *states[0]),
        resume_plainly(getattr(torchopt_course, optimizer_name), options, *states[1]),
    ]
    assert_fused(optimizer.optim)
    for model in (mine, *resumed):
        for (name, param), twin in zip(model.named_parameters(), reference.parameters(), strict=True):
            assert_close(param.detach(), twin.detach(), name)


def resume_plainly(
    optimizer_class: type[Optimizer], options: dict[str, Any], parameters: dict[str, Tensor], state: Any
) -> nn.Module:
    model = data_parallel(network())
    model.load_state_dict(parameters)
    optimizer = optimizer_class(model.parameters(), **options)
    optimizer.load_state_dict(state)
    train(model, optimizer, range(STEPS, 2 * STEPS))
    return model
