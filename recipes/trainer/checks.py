"""Which settings of a run cannot work, or have no effect, said before anything is written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
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
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    check_values(config, processes)
    check_combinations(config, processes)
    check_effects(config, processes)
    check_optimizer(config)
    need("matplotlib", "tensorboard", *(["sklearn"] if config.data == "digits" else []))


def check_values(config: Config, processes: int) -> None:
    """Every option by itself."""
    for option, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal:
            require(config, option, get_args(kind).__contains__, f"one of {', '.join(get_args(kind))}")
    for option in ("lr", "momentum", "weight_decay", "save_every"):
        require(config, option, lambda number: 0 <= number < math.inf, "a number from 0 up")
    lr = learning_rate(config.optimizer, config.lr)
    require(config, "max_lr", lambda top: lr < top < math.inf, f"a number above the learning rate, {lr}")
    for option in ("epochs", "batch_size", "cycle_epochs"):
        require(config, option, lambda count: 1 <= count < 2**63, "from 1 to 2**63 - 1")
    each = f"at least {processes}, a row for each process"
    require(config, "batch_size", lambda rows: rows >= processes, each)
    check_seed(config.seed)
    require(config, "device", re.compile(r"cpu|cuda(:\d+)?").fullmatch, "cpu, cuda or cuda:N")
    number, devices = config.device.partition(":")[2], torch.cuda.device_count()
    if config.device != "cpu" and int(number or 0) >= devices:
        here = f"this machine has {devices} CUDA devices"
        raise OptionError(f"--device {config.device}: {here}; --device cpu needs none")


def require(config: Config, option: str, fits: Callable[[Any], object], expected: str) -> None:
    """Name an option whose value, if one was given, is not what was expected."""
    value = getattr(config, option)
    if value is not None and not fits(value):
        raise OptionError(f"{as_typed(option)} must be {expected}, not {value!r}")


def check_combinations(config: Config, processes: int) -> None:
    """Options that cannot go together."""
    mini, cpu, still = config.autograd == "mini", config.device == "cpu", config.lr == 0
    for clash, why in (
        (cpu and config.offload, "--offload keeps on the host what a GPU computes with, and --device is cpu"),
        (
            mini and processes > 1,
            "--autograd mini trains on one process: torch's backward averages gradients",
        ),
        (mini and config.compile, "--compile compiles torch's backward pass, not that of --autograd mini"),
        (still and config.scheduler == "plateau", "--scheduler plateau lowers --lr, and 0 is lowest"),
        (still and config.scheduler == "cyclic" and not config.max_lr, "--lr 0 needs --max-lr for a cycle"),
    ):
        if clash:
            raise OptionError(why)


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
            raise OptionError(f"{as_typed(option)} has an effect only with {what_for}; leave it out")


def as_typed(option: str) -> str:
    """The option as it stands on the command line."""
    return "--" + option.replace("_", "-")


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
    weight, lr = torch.nn.Parameter(torch.zeros(1)), learning_rate(config.optimizer, config.lr)
    try:
        make_optimizer(config.optimizer, [weight], lr, **optimizer_options(config))
    except ValueError as error:
        raise OptionError(f"--optimizer {config.optimizer}: {error}") from error
