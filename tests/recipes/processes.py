"""Runs in processes of their own that start in milliseconds and can be killed.

A forkserver imports torch and the recipes once; every run is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.recipes.processes_preload"])


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a process of its own."""
    process = context.Process(target=_quietly, args=(target, arguments), daemon=True)
    process.start()
    return process


def _quietly(target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    target(*arguments)


def train_on_several(size: int, words: list[str], output: Path) -> list[BaseProcess]:
    """What `torchrun --nproc-per-node SIZE recipes/train.py WORDS` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(train_as_rank, rank, size, port, words, output) for rank in range(size)]


def train_as_rank(rank: int, size: int, port: int, words: list[str], output: Path) -> None:
    """One of the processes, told by torchrun's environment variables which one it is."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    train_by_command(words, output)


def train_by_command(words: list[str], output: Path) -> None:
    """What `python recipes/train.py WORDS` does, with its output in a file."""
    from recipes.train import main

    with open(output, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["train.py", *words]
        main()
