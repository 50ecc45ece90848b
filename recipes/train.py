"""Train a small network with one optimizer: `python recipes/train.py --optimizer adam --logdir runs/adam`."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, get_args

import torch
import tyro
from torch import nn

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.command_line import OptionError, parse, plain_endings, progress_bar
from recipes.common.data import DataName, Split, load_data
from recipes.common.loop import AutogradName, Epoch, one_thread, train, weights_sha256
from recipes.common.model import ModelName, make_model
from recipes.common.optimizers import LEARNING_RATES, OptimizerName, make_optimizer
from recipes.common.run_folder import RunFolder, tensorboard_command
from recipes.common.schedulers import SchedulerName, make_scheduler


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a small network on handwritten digits with one optimizer.

    Everything of the run lies in --logdir:
    - config.json: the settings
    - metrics.jsonl: a line for every epoch
    - result.json: the outcome
    - events.out...: the file that TensorBoard reads

    The same command gives the same weights, bit for bit.
    """

    data: DataName = "digits"
    """What to learn: 1,797 scans of handwritten digits that come with scikit-learn."""
    split: Split = "test"
    """Rows to measure on: those kept for the test, or a part of the others, to choose settings with."""
    model: ModelName = "mlp"
    """64-64-10 with ReLU, or a small LeNet with batch norm and dropout."""
    autograd: AutogradName = "torch"
    """Who differentiates: torch, or torchopt_course.autograd, written to be read."""
    optimizer: OptimizerName = "adam"
    """Which optimizer of torchopt_course updates the weights."""
    lr: Annotated[
        float | None,
        tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the rate chosen for the optimizer)"),
    ] = None
    """Learning rate."""
    scheduler: SchedulerName = "none"
    """How the rate changes: to a tenth on a plateau of the training loss, or up and down in cycles."""
    epochs: int = 60
    """Passes over the training rows."""
    batch_size: int = 32
    """Rows in one step."""
    seed: int = 0
    """Fixes the initial weights and the order of the rows, but not the split."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:N."""
    logdir: Path = Path("runs/train")
    """Folder of the run. An earlier run in it is replaced; other files there are left alone."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run; all but the model is in result.json."""

    optimizer: str
    lr: float
    scheduler: str
    seed: int
    epochs: int
    accuracy: float
    """Share of the measured rows that the final weights classify rightly, 0 to 1."""
    loss: float
    """Mean loss of the measured rows under the final weights."""
    train_loss: float
    """Mean loss of the last epoch's training steps."""
    seconds: float
    """Time spent in training, without measuring and logging."""
    step_microseconds: float
    """Median time of one `optimizer.step()`."""
    first_step_seconds: float
    """Time of the first one: it compiles the optimizer, unless an earlier run left that in the cache."""
    torch_version: str
    weights_sha256: str
    model: nn.Module = dataclasses.field(repr=False)


def run(config: Config, on_epoch: Callable[[Epoch], object] = lambda epoch: None) -> Result:
    """Train as `config` says, log into its folder, and return the outcome. `on_epoch` sees every epoch."""
    model, _, epochs = set_up(config)
    lr = learning_rate(config)
    done: list[Epoch] = []
    settings = {**vars(config), "lr": lr, "logdir": str(config.logdir)}
    with one_thread(), RunFolder(config.logdir, settings) as folder:
        for epoch in epochs:
            done.append(epoch)
            folder.log(epoch, model)
            on_epoch(epoch)

        result = Result(
            optimizer=config.optimizer,
            lr=lr,
            scheduler=config.scheduler,
            seed=config.seed,
            epochs=config.epochs,
            accuracy=done[-1].accuracy,
            loss=done[-1].loss,
            train_loss=done[-1].train_loss,
            seconds=sum(epoch.seconds for epoch in done),
            step_microseconds=1e6 * statistics.median(s for epoch in done for s in epoch.step_seconds),
            first_step_seconds=done[0].step_seconds[0],
            torch_version=torch.__version__,
            weights_sha256=weights_sha256(model),
            model=model,
        )
        folder.finish(summary(result))
    return result


def set_up(config: Config) -> tuple[nn.Module, torch.optim.Optimizer, Iterator[Epoch]]:
    """The model, its optimizer, and the epochs: each is trained when the caller asks for it."""
    check(config)
    device = torch.device(config.device)
    data = load_data(config.data, config.split, device)
    torch.manual_seed(config.seed)
    model = make_model(config.model, data).to(
        device
    )  # made on the CPU: the same initial weights on every device
    lr = learning_rate(config)
    optimizer = make_optimizer(config.optimizer, model.parameters(), lr)
    steps_per_epoch = math.ceil(len(data.train_inputs) / config.batch_size)
    epochs = train(
        model,
        optimizer,
        data,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        autograd=config.autograd,
        scheduler=make_scheduler(config.scheduler, optimizer, lr, steps_per_epoch),
    )
    return model, optimizer, epochs


def learning_rate(config: Config) -> float:
    """The one asked for, or the one chosen for the optimizer."""
    return LEARNING_RATES[config.optimizer] if config.lr is None else config.lr


def check(config: Config) -> None:
    """Refuse what cannot work before anything is written."""
    named = {
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
    for option in ("epochs", "batch_size"):
        if (value := getattr(config, option)) < 1:
            raise OptionError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    if not 0 <= config.seed < 2**63:
        raise OptionError(f"--seed must be from 0 to 2**63 - 1, not {config.seed}")
    check_device(config.device)


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


def summary(result: Result) -> dict[str, str | int | float]:
    """The part of a result that a file can hold."""
    return {name: value for name, value in vars(result).items() if name != "model"}


def main() -> None:
    """Parse, train under a progress bar, and print the outcome; the last line is for programs."""
    config = parse(Config)
    with plain_endings():
        with progress_bar(config.epochs, "epoch", config.optimizer) as bar:

            def advance(epoch: Epoch) -> None:
                bar.set_postfix_str(f"accuracy {epoch.accuracy:.1%}", refresh=False)
                bar.update()

            result = run(config, advance)
        print(
            f"{result.optimizer}, learning rate {result.lr:g}: {config.split} accuracy {result.accuracy:.1%} "
            f"after {result.epochs} epochs, {result.seconds:.1f} s, "
            f"{result.step_microseconds:.0f} microseconds per step()"
        )
        print(f"To look at the run: {tensorboard_command(config.logdir)}")
        print(json.dumps(summary(result)))


if __name__ == "__main__":
    main()
