"""Train a small network with one optimizer: `python recipes/train.py --optimizer adam --logdir runs/adam`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.board import pictures_are_due, tensorboard_command
from recipes.common.checks import check
from recipes.common.command_line import parse, plain_endings, progress_bar
from recipes.common.data import DataName, Split, load_data
from recipes.common.loop import AutogradName, Training, threads_for
from recipes.common.measure import Epoch, weights_sha256
from recipes.common.model import ModelName, make_model
from recipes.common.optimizers import OptimizerName, learning_rate, make_optimizer
from recipes.common.processes import World, is_first_process, joined, local_device
from recipes.common.report import table
from recipes.common.run_folder import RunFolder, plain_settings, read_epochs, read_json
from recipes.common.schedulers import SchedulerName, make_scheduler
from recipes.common.stopping import StoppedError, StopRequest, stop_requests


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a small network on handwritten digits or Fashion-MNIST.

    Everything of the run lies in --logdir:
    - config.json: the settings
    - step-N.torchopt_course.pt: the two newest checkpoints
    - metrics.jsonl: a line for every epoch
    - events.out...: the files that TensorBoard reads
    - predictions.png, confusion.png: what the model sees
    - result.json: the outcome

    The same command gives the same weights, bit for bit. Stopped in whatever way, even by kill -9, the same
    command goes on where the run was. On several processes: torchrun --nproc-per-node 2 recipes/train.py
    """

    data: DataName = "digits"
    """1,797 scans of handwritten digits that come with scikit-learn, or 70,000 pictures of clothes."""
    data_dir: Path | None = None
    """Where Fashion-MNIST lies, or is to be downloaded to."""
    split: Split = "test"
    """Rows to measure on: those kept for the test, or a part of the others, to choose settings with."""
    model: ModelName = "mlp"
    """One hidden layer; a LeNet with batch norm and dropout; or two plain 5 x 5 convolutions."""
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
    max_lr: Annotated[
        float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: ten times --lr)")
    ] = None
    """The rate at the top of a cycle."""
    cycle_epochs: int = 8
    """Epochs from one bottom of the rate to the next; every cycle is half as high as the one before."""
    epochs: int = 60
    """Passes over the training rows. A finished run can be given more."""
    batch_size: int = 32
    """Rows in one step, of all processes together."""
    seed: int = 0
    """Fixes the initial weights, the order of the rows and dropout, but not the split."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:N."""
    amp: bool = False
    """Mixed precision: bfloat16 where torch thinks it safe."""
    compile: bool = False
    """Let torch.compile speed up the forward and backward pass; needs a C++ compiler on the CPU."""
    shard: bool = False
    """On several processes, each keeps a part of the weights (FSDP2) instead of a copy (DDP)."""
    save_every: float = 30.0
    """Seconds from one checkpoint to the next."""
    fresh: bool = False
    """Replace the run in --logdir instead of going on with it."""
    logdir: Path = Path("runs/train")
    """Folder of the run. Files that are not the recipe's own are left alone."""


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
    model: nn.Module | None = dataclasses.field(default=None, repr=False)


def run(config: Config, on_epoch: Callable[[Epoch], object] = lambda epoch: None) -> Result:
    """Train as `config` says, or go on doing so, and return the outcome. `on_epoch` sees every new epoch."""
    check(config)
    device = local_device(config.device)
    with threads_for(config.data), joined(device) as world, contextlib.ExitStack() as stack:
        training = set_up(config, world)
        settings = settings_of(config, training)
        folder: RunFolder | None = None  # of the first process

        def open_folder() -> dict[str, Any] | None:
            nonlocal folder
            folder = stack.enter_context(RunFolder(config.logdir, settings, config.fresh))
            return folder.training

        stop = stack.enter_context(stop_requests())
        if state := world.from_first(open_folder):
            training.load_state_dict(state)
        else:
            save(training, folder, begin=True)
        train_on(training, folder, config, stop, on_epoch)
        save(training, folder)
        digest = weights_sha256(training.model)
        result = world.from_first(lambda: finish(config, digest, folder))
        return dataclasses.replace(result, model=training.model)


def train_on(
    training: Training,
    folder: RunFolder | None,
    config: Config,
    stop: StopRequest,
    on_epoch: Callable[[Epoch], object],
) -> None:
    """Step after step to the last epoch; log each, save from time to time, and when asked to stop."""
    saved = time.monotonic()
    while training.epochs_done < config.epochs:
        step = training.step()
        if folder:
            folder.log_step(step)
        if epoch := step.epoch:
            due = pictures_are_due(epoch.epoch, config.epochs)
            predicted = training.predictions() if due else None
            if folder:
                folder.log_epoch(epoch, training.closeups)
                if predicted is not None:
                    folder.log_pictures(training.data, predicted, epoch.epoch)
            on_epoch(epoch)
        # All processes stop, or save, after the same step.
        due_now = folder is not None and time.monotonic() - saved >= config.save_every
        stopping, saving = training.world.sum(stop.number != 0, due_now, device=training.device)
        if stopping or saving:
            save(training, folder)
            saved = time.monotonic()
        if stopping:
            raise StoppedError(
                f"stopped after {training.epochs_done} epochs and {training.steps_done} steps; "
                "the same command goes on from there",
                stop.number or signal.SIGTERM,
            )


def save(training: Training, folder: RunFolder | None, begin: bool = False) -> None:
    """Write a checkpoint; every process contributes its part of the weights."""
    state = training.state_dict()

    def write() -> None:
        assert folder is not None  # the first process has one
        folder.begin(state) if begin else folder.save(state)

    training.world.from_first(write)


def finish(config: Config, digest: str, folder: RunFolder | None) -> Result:
    """Write result.json and return what is in it."""
    assert folder is not None
    epochs = read_epochs(folder.path)
    last = epochs[-1]
    result = Result(
        optimizer=config.optimizer,
        lr=learning_rate(config.optimizer, config.lr),
        scheduler=config.scheduler,
        seed=config.seed,
        epochs=config.epochs,
        accuracy=last["accuracy"],
        loss=last["loss"],
        train_loss=last["train_loss"],
        seconds=sum(epoch["seconds"] for epoch in epochs),
        step_microseconds=statistics.median(epoch["step_microseconds"] for epoch in epochs),
        first_step_seconds=epochs[0]["first_step_seconds"],
        torch_version=torch.__version__,
        weights_sha256=digest,
    )
    folder.finish(summary(result))
    return result


def set_up(config: Config, world: World | None = None) -> Training:
    """Data, model, optimizer and schedule: a training at its beginning."""
    check(config)
    world = World() if world is None else world
    device = local_device(config.device)
    data = load_data(config.data, config.split, device, config.data_dir)
    torch.manual_seed(config.seed)
    model = make_model(config.model, data).to(device)  # made on the CPU: the same weights on every device
    forward = world.spread(model, device, config.shard)
    lr = learning_rate(config.optimizer, config.lr)
    optimizer = make_optimizer(config.optimizer, model.parameters(), lr)
    scheduler = make_scheduler(
        config.scheduler,
        optimizer,
        lr=lr,
        max_lr=config.max_lr,
        steps_per_cycle=config.cycle_epochs * math.ceil(len(data.train_inputs) / config.batch_size),
    )
    return Training(
        model,
        optimizer,
        data,
        batch_size=config.batch_size,
        seed=config.seed,
        autograd=config.autograd,
        scheduler=scheduler,
        amp=config.amp,
        forward=torch.compile(forward) if config.compile else forward,
        world=world,
    )


def settings_of(config: Config, training: Training) -> dict[str, Any]:
    """What config.json says, and a run that is taken up again is compared by."""
    plain = plain_settings(config)
    del plain["fresh"]  # it says what to do with an earlier run, nothing of this one
    return {
        "recipe": "train",
        **plain,
        "lr": learning_rate(config.optimizer, config.lr),
        "data_sha256": training.data.sha256(),
        "weights": sum(w.numel() for w in training.model.parameters()),
    }


def summary(result: Result) -> dict[str, str | int | float]:
    """The part of a result that a file can hold."""
    return {name: value for name, value in vars(result).items() if name != "model"}


def epoch_table(config: Config) -> str:
    """The epochs after which pictures were drawn."""
    everything = read_epochs(config.logdir)
    epochs = [epoch for epoch in everything if pictures_are_due(epoch["epoch"], len(everything))]
    columns = {
        "epoch": [str(epoch["epoch"]) for epoch in epochs],
        "training\nloss": [f"{epoch['train_loss']:.5f}" for epoch in epochs],
        f"{config.split}\nloss": [f"{epoch['loss']:.4f}" for epoch in epochs],
        f"{config.split}\naccuracy": [f"{epoch['accuracy']:.1%}" for epoch in epochs],
        "last\nrate": [f"{epoch['lr']:.4g}" for epoch in epochs],
    }
    return table(list(columns), list(zip(*columns.values(), strict=True)))


def main() -> None:
    """Parse, train under a progress bar, and print the outcome; the last line is for programs."""
    config = parse(Config)
    with plain_endings():
        finished_before = not config.fresh and (read_json(config.logdir / "result.json") or {}).get("epochs")
        with progress_bar(config.epochs, "epoch", config.optimizer) as bar:

            def advance(epoch: Epoch) -> None:
                bar.set_postfix_str(f"accuracy {epoch.accuracy:.1%}", refresh=False)
                bar.update(epoch.epoch - bar.n)

            result = run(config, advance)
        if not is_first_process():
            return
        if finished_before == config.epochs:
            print(f"{config.logdir} had this run already, finished; --fresh trains it anew.")
        print(f"{epoch_table(config)}\n")
        print(
            f"{result.optimizer}, learning rate {result.lr:g}: {config.split} accuracy {result.accuracy:.1%} "
            f"after {result.epochs} epochs (the last, not the best), "
            f"{result.seconds:.1f} s, {result.step_microseconds:.0f} microseconds per step()"
        )
        print(f"To look at the run: {tensorboard_command(config.logdir)}")
        print(json.dumps(summary(result)))


if __name__ == "__main__":
    main()
