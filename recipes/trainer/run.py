"""A run of `train.py`, from its settings to its outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from recipes.common.command_line import first_line
from recipes.common.data import load_data
from recipes.common.errors import CheckpointError, StoppedError
from recipes.common.folder import plain_settings
from recipes.common.loop import one_thread
from recipes.common.model import make_model
from recipes.common.optimizers import learning_rate, make_optimizer
from recipes.common.schedulers import CYCLE_EPOCHS, make_scheduler
from recipes.trainer.checks import check, optimizer_options
from recipes.trainer.measure import Epoch, Result, weights_sha256
from recipes.trainer.processes import ALONE, World, joined, local_device
from recipes.trainer.run_folder import RunFolder
from recipes.trainer.stopping import StopRequest, stop_requests
from recipes.trainer.training import Training

if TYPE_CHECKING:
    from recipes.train import Config


def run(config: Config, on_epoch: Callable[[Epoch], object] = lambda epoch: None) -> Result:
    """Train as `config` says, or go on doing so, and return the outcome. `on_epoch` sees every new epoch."""
    check(config)
    # As many threads as torch likes, but for the small pictures.
    threads = one_thread() if config.data == "digits" else contextlib.nullcontext()
    with threads, joined(local_device(config.device)) as world:
        training = set_up(config, world)
        settings = settings_of(config, training)
        with stop_requests() as stop, RunFolder(config.logdir) as folder:
            state, result = world.from_first(lambda: folder.open(settings, training.data, config.fresh))
            if state:
                take_up(training, state, config)
            else:
                save(training, folder)
            if result is None:
                train_on(training, folder, config, stop, on_epoch)
                save(training, folder)
                digest = weights_sha256(training.model)
                result = world.from_first(lambda: folder.finish(digest))
        return dataclasses.replace(result, model=training.model)


def take_up(training: Training, state: dict[str, Any], config: Config) -> None:
    """Go on from a state. Raises `CheckpointError` for one that no run with these settings has left."""
    try:
        training.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the newest checkpoint in {config.logdir} does not fit this run ({first_line(error)}); "
            "choose another --logdir, or replace it with --fresh"
        ) from error


def train_on(
    training: Training,
    folder: RunFolder,
    config: Config,
    stop: StopRequest,
    on_epoch: Callable[[Epoch], object],
) -> None:
    """Step after step to the last epoch; log each, save from time to time, and when asked to stop."""
    saved = time.monotonic()
    while training.epochs_done < config.epochs:
        epoch = training.step()
        if training.world.rank == 0:
            folder.log(training, epoch)
        if epoch:
            on_epoch(epoch)
        # All processes stop, or save, after the same step.
        late = training.world.rank == 0 and time.monotonic() - saved >= config.save_every
        stopping, saving = training.world.sum(stop.number != 0, late, device=training.device)
        if stopping or saving:
            save(training, folder)
            saved = time.monotonic()
        if stopping:
            without = " without --fresh" if config.fresh else ""
            raise StoppedError(
                f"stopped after {training.epochs_done} epochs and {training.steps_done} steps; "
                f"the same command{without} goes on from there",
                stop.number or signal.SIGTERM,
            )


def save(training: Training, folder: RunFolder) -> None:
    """Write a checkpoint; every process contributes its part of the weights."""
    state = training.state_dict()
    training.world.from_first(lambda: folder.save(state))


def set_up(config: Config, world: World = ALONE) -> Training:
    """Data, model, optimizer and schedule: a training at its beginning."""
    device = local_device(config.device)
    data = load_data(config.data, config.split, device, config.data_dir)
    model = make_model(config.model, data, config.seed).to(device)
    forward = world.spread(model, device, config.shard, config.offload)
    lr = learning_rate(config.optimizer, config.lr)
    optimizer = make_optimizer(config.optimizer, model.parameters(), lr, **optimizer_options(config))
    steps_per_epoch = math.ceil(len(data.train_inputs) / config.batch_size)
    scheduler = make_scheduler(
        config.scheduler,
        optimizer,
        lr=lr,
        max_lr=config.max_lr,
        steps_per_cycle=(config.cycle_epochs or CYCLE_EPOCHS) * steps_per_epoch,
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
        "lr": training.optimizer.defaults["lr"],  # the rate chosen for it, if none was given
        "data_sha256": training.data.sha256(),
        "weights": sum(w.numel() for w in training.model.parameters()),
        "threads": torch.get_num_threads(),
        "processes": training.world.size,
        "torch_version": torch.__version__,
    }
