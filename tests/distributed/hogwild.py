"""What the four processes of the Hogwild tests do; a module of its own, for `spawn` imports it in each."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.synchronize import Barrier, Semaphore
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

import torchopt_course

PROCESSES = 4
TURNS = 12
PATIENCE = 120.0  # seconds, for a process that died
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9},
    "Adagrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Adam": {"lr": 0.02, "amsgrad": True},
}
TARGET = 3.0


def parameters() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in [(7,), (5, 3), (), (1_001,)]
    ]


def step(params: Sequence[Tensor], optimizer: Optimizer, turn: int) -> None:
    """A step whose gradient depends on the turn and on where the others have left the parameters."""
    for i, param in enumerate(params):
        param.grad = (param.detach() - TARGET) * (1 + 0.3 * ((turn + i) % 3))
    optimizer.step()


def take_turns(
    rank: int,
    tasks: Sequence[tuple[list[Parameter], torchopt_course.ElementwiseOptimizer]],
    may_step: Sequence[Semaphore],
) -> None:
    """Step one optimizer, its parameters and its states in turns with the other processes."""
    for params, optimizer in tasks:
        for turn in range(rank, TURNS, PROCESSES):
            assert may_step[rank].acquire(timeout=PATIENCE), f"process {rank} waits in vain at turn {turn}"
            step(params, optimizer, turn)
            may_step[(rank + 1) % PROCESSES].release()
        report = optimizer.engine_report()
        assert report.startswith(f"fused CPU engine: {len(params)} parameters"), report


def race(params: list[Parameter], start: Barrier) -> None:
    """Hogwild: an optimizer of one's own on everybody's parameters, nobody waits for anybody."""
    optimizer = torchopt_course.SGD(params, lr=0.1)
    start.wait(PATIENCE)
    for _ in range(100):
        for param in params:
            param.grad = param.detach() - TARGET
        optimizer.step()


def work(
    rank: int,
    tasks: Sequence[tuple[list[Parameter], torchopt_course.ElementwiseOptimizer]],
    may_step: Sequence[Semaphore],
    raced: list[Parameter],
    start: Barrier,
) -> None:
    torch.set_num_threads(1)
    take_turns(rank, tasks, may_step)
    race(raced, start)
