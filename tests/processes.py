"""Processes of their own that start in milliseconds and can be killed.

A forkserver imports torch, the recipes and what is distributed once; every process is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.recipes.processes_preload", "tests.distributed.worker"])


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a process of its own."""
    process = context.Process(target=_quietly, args=(target, arguments), daemon=True)
    process.start()
    return process


def _quietly(target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    target(*arguments)


def start_ranks(size: int, target: Callable[..., object], *arguments: Any) -> list[BaseProcess]:
    """What `torchrun --nproc-per-node SIZE` does: so many processes that can find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(_as_rank, rank, size, port, target, arguments) for rank in range(size)]


def _as_rank(
    rank: int, size: int, port: int, target: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """One of the processes, told by torchrun's environment variables which one it is."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    target(*arguments)
