"""Which settings of a run cannot work, or have no effect, said before anything is written."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import torch

from recipes.common.command_line import check_seed, need
from recipes.common.errors import OptionError
from recipes.common.optimizers import OPTIMIZERS, learning_rate, make_optimizer, options_of

if TYPE_CHECKING:
    from recipes.train import Config

# Options of the optimizers; those that are not given keep the optimizer's own default.
OPTIMIZER_OPTIONS = ("momentum", "nesterov", "betas", "weight_decay")


def check(config: Config) -> None:
    """Raise `OptionError`, which names the option, its value and what was expected."""
    for option, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and (value := getattr(config, option)) not in get_args(kind):
            raise OptionError(f"--{option} must be one of {', '.join(get_args(kind))}, not {value!r}")
    for option in ("lr", "momentum", "weight_decay", "save_every"):
        if (number := getattr(config, option)) is not None and not 0 <= number < math.inf:
            raise OptionError(f"--{option.replace('_', '-')} must be a number from 0 up, not {number}")
    rate = learning_rate(config.optimizer, config.lr)
    if config.max_lr is not None and not rate < config.max_lr < math.inf:
        raise OptionError(f"--max-lr must be a number above the learning rate, {rate}, not {config.max_lr}")
    for option in ("epochs", "batch_size", "cycle_epochs"):
        if (count := getattr(config, option)) is not None and not 1 <= count < 2**63:
            raise OptionError(f"--{option.replace('_', '-')} must be from 1 to 2**63 - 1, not {count}")
    check_seed(config.seed)
    check_device(config.device)
    if config.offload and not config.device.startswith("cuda"):
        raise OptionError(
            f"--offload keeps on the host what a GPU computes with, and --device is {config.device}"
        )
    check_optimizer(config)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    check_effects(config, processes)
    if processes > 1 and config.autograd == "mini":
        raise OptionError("--autograd mini trains on one process: torch's backward pass averages gradients")
    if config.compile and config.autograd == "mini":
        raise OptionError("--compile compiles torch's backward pass, not that of --autograd mini")
    if config.batch_size < processes:
        raise OptionError(f"--batch-size must be at least {processes}, a row for each process")
    need("matplotlib", "tensorboard", *(["sklearn"] if config.data == "digits" else []))


def check_device(name: str) -> None:
    """Refuse a device that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or (device != torch.device("cpu") and device.type != "cuda"):
        raise OptionError(f"--device must be cpu, cuda or cuda:N, not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        here = f"this machine has {torch.cuda.device_count()} CUDA devices"
        raise OptionError(f"--device {name}: {here}; --device cpu needs none")


def check_effects(config: Config, processes: int) -> None:
    """An option that would change nothing is a mistake of somebody who thinks that it does."""
    for option, of_use, what_for in (
        ("max_lr", config.scheduler == "cyclic", "--scheduler cyclic"),
        ("cycle_epochs", config.scheduler == "cyclic", "--scheduler cyclic"),
        ("data_dir", config.data == "fashion-mnist", "--data fashion-mnist"),
        ("shard", processes > 1, "several processes (torchrun --nproc-per-node 2)"),
        ("offload", config.shard and processes > 1, "--shard on several processes"),
        *((o, o in options_of(config.optimizer), takers_of(o)) for o in OPTIMIZER_OPTIONS),
    ):
        if is_given(getattr(config, option)) and not of_use:
            name = "--" + option.replace("_", "-")
            raise OptionError(f"{name} has an effect only with {what_for}; leave it out")


def takers_of(option: str) -> str:
    """Which optimizers have an option."""
    return f"--optimizer {' or '.join(name for name in OPTIMIZERS if option in options_of(name))}"


def optimizer_options(config: Config) -> dict[str, Any]:
    """The options of the optimizer that were given."""
    given = {name: getattr(config, name) for name in OPTIMIZER_OPTIONS}
    return {name: value for name, value in given.items() if is_given(value)}


def is_given(value: object) -> bool:
    """A switch is on, or another option was named: also with 0, which is a number like others."""
    return value is not None and value is not False


def check_optimizer(config: Config) -> None:
    """Let the optimizer itself look at its options."""
    options = optimizer_options(config)
    if options.keys() <= options_of(config.optimizer):
        weight, lr = torch.nn.Parameter(torch.zeros(1)), learning_rate(config.optimizer, config.lr)
        try:
            make_optimizer(config.optimizer, [weight], lr, **options)
        except ValueError as error:
            raise OptionError(f"--optimizer {config.optimizer}: {error}") from error
