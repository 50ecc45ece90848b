"""Which settings of a run cannot work, said before anything is written."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, get_args

import torch

from recipes.common.command_line import OptionError, check_seed
from recipes.common.data import DataName, Split
from recipes.common.loop import AutogradName
from recipes.common.model import ModelName
from recipes.common.optimizers import OptimizerName, learning_rate
from recipes.common.schedulers import SchedulerName

if TYPE_CHECKING:
    from recipes.train import Config


def check(config: Config) -> None:
    """Raise `OptionError`, which names the option, its value and what was expected."""
    named: dict[str, Any] = {
        "data": DataName,
        "split": Split,
        "model": ModelName,
        "autograd": AutogradName,
        "optimizer": OptimizerName,
        "scheduler": SchedulerName,
    }
    for option, choices in named.items():
        if (value := getattr(config, option)) not in get_args(choices):
            raise OptionError(f"--{option} must be one of {', '.join(get_args(choices))}, not {value!r}")
    if config.lr is not None and not (0 <= config.lr < math.inf):
        raise OptionError(f"--lr must be a number from 0 up, not {config.lr}")
    if config.max_lr is not None and not (
        learning_rate(config.optimizer, config.lr) <= config.max_lr < math.inf
    ):
        raise OptionError(f"--max-lr must be a number from the learning rate up, not {config.max_lr}")
    if not config.save_every >= 0:
        raise OptionError(f"--save-every must be a number of seconds from 0 up, not {config.save_every}")
    for option in ("epochs", "batch_size", "cycle_epochs"):
        if (value := getattr(config, option)) < 1:
            raise OptionError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    check_seed(config.seed)
    check_device(config.device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and config.autograd == "mini":
        raise OptionError("--autograd mini trains on one process: torch's backward pass averages gradients")
    if config.compile and config.autograd == "mini":
        raise OptionError("--compile compiles torch's backward pass, not that of --autograd mini")
    if config.batch_size < processes:
        raise OptionError(f"--batch-size must be at least {processes}, a row for each process")


def check_device(name: str) -> None:
    """Refuse a device that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise OptionError(f"--device must be cpu, cuda or cuda:N, not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
