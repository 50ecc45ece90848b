"""What stands around an optimizer in a large training: ``torch.compile`` and sharded parameters."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn import Parameter

from ..catalogue import check
from ..trial import TOLERANCE, Trial, needs_closure, only_parameters, parameters_of
from ..verdict import History, NotAsked, compare

STEPS = 4


@check()
def check_compiled(trial: Trial) -> None:
    """``torch.compile`` of the step, without a compiler behind it, takes the same steps.

    Up to float32's rounding: torch's own optimizers compute their bias corrections in that when compiled.
    """
    import torch._dynamo

    expected = only_parameters(trial.run(trial.optimizer(trial.parameters()[::3]), 0, STEPS))
    optimizer = trial.optimizer(trial.parameters()[::3])  # reading each parameter's part takes time
    if needs_closure(optimizer):
        raise NotAsked("it steps with a closure only")
    torch._dynamo.reset()
    log = logging.getLogger("torch._dynamo")
    level = log.level
    log.setLevel(logging.ERROR)  # it says that it leaves out the profiler's label
    try:
        step = torch.compile(optimizer.step, backend="eager")
        params = parameters_of(optimizer)
        history: History = []
        for number in range(STEPS):
            for i, param in enumerate(params):
                param.grad = torch.empty_like(param).copy_(trial.gradient(number, i, tuple(param.shape)))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1000 * trial.seed + number)
                step()
            history.append({f"parameter {i}": p.detach().clone() for i, p in enumerate(params)})
    finally:
        log.setLevel(level)
        torch._dynamo.reset()
    bound = max(trial.bound, TOLERANCE[torch.float32])
    compare("under torch.compile", history, "without", expected, bound=bound)


@check()
def check_sharded(trial: Trial) -> None:
    """``DTensor`` parameters, on a mesh of this process alone, take the same steps, and their states load."""
    import torch.distributed as dist

    if not dist.is_available():
        raise NotAsked("this torch has no torch.distributed")
    if dist.is_initialized() and dist.get_world_size() > 1:
        raise NotAsked("there is a process group of several processes already")
    # What an optimizer asks of an empty DTensor, torch may search an answer for without end.
    plain = [param for param in trial.plain_parameters() if param.numel()]
    expected = only_parameters(trial.run(trial.optimizer(plain), 0, STEPS))
    with _process_group():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        mesh = init_device_mesh(trial.device.type, (1,))
        # A scalar has no dimension to shard.
        whole = [param.detach() for param in trial.plain_parameters() if param.numel()]
        sharded: list[Any] = [
            Parameter(distribute_tensor(value, mesh, [Shard(0)] if value.dim() else None)) for value in whole
        ]
        optimizer = trial.optimizer(sharded)
        history: History = []
        for number in range(STEPS):
            for i, param in enumerate(sharded):
                grad = trial.gradient(number, i, tuple(param.shape))
                param.grad = distribute_tensor(grad, mesh, param.placements)
            trial.step(optimizer, number)
            history.append(
                {f"parameter {i}": p.detach().full_tensor().clone() for i, p in enumerate(sharded)}
            )
            if number == STEPS // 2:
                optimizer.load_state_dict(optimizer.state_dict())
        trial.compare("with DTensor parameters", history, "with plain ones", expected)


@contextmanager
def _process_group() -> Iterator[None]:
    """Of this process alone, unless there is one."""
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    store = dist.HashStore()  # type: ignore[attr-defined]
    excepthook = sys.excepthook  # torch's puts [rank0] before every later traceback
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = excepthook
