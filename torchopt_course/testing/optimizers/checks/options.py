"""Options: the learning rate and its schedulers, ``maximize``, weight decay."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from ..catalogue import FULL, check
from ..trial import Trial, only_parameters, parameters_of
from ..verdict import History, NotAsked, OptimizerError


@check()
def check_learning_rate(trial: Trial) -> None:
    """``group["lr"]`` is heeded in the next step after it was changed."""

    def halved_in(turn: int) -> History:
        optimizer = trial.optimizer(trial.parameters())
        before = trial.run(optimizer, 0, turn)
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
        return only_parameters(before + trial.run(optimizer, turn, 3))

    _rate(trial)
    early, late = halved_in(1), halved_in(2)
    if all(torch.equal(value, late[0][name]) for name, value in late[1].items()):
        raise NotAsked("it does not move in step 2, as in a warm-up from zero")
    if all(torch.equal(value, late[1][name]) for name, value in early[1].items()):
        raise OptimizerError('group["lr"] was halved after step 1, and step 2 is what it was')


@check()
def check_schedulers(trial: Trial) -> None:
    """torch's schedulers drive it, as does who sets ``group["lr"]`` by hand."""
    rate = _rate(trial)
    factors = [1 / (1 + step) for step in range(4)]
    driven, by_hand = (trial.optimizer(trial.parameters()) for _ in range(2))
    scheduler = lr_scheduler.LambdaLR(driven, lambda step: 1 / (1 + step))
    histories: tuple[History, History] = ([], [])
    for step, factor in enumerate(factors):
        for group in by_hand.param_groups:
            group["lr"] = rate * factor
        for optimizer, history in zip((driven, by_hand), histories, strict=True):
            history += only_parameters(trial.run(optimizer, step, step + 1))
        if driven.param_groups[0]["lr"] != rate * factor:
            raise OptimizerError(
                f'step() has changed group["lr"] from {rate * factor:g}, as LambdaLR set it, to '
                f"{driven.param_groups[0]['lr']:g}"
            )
        scheduler.step()
    trial.compare("under LambdaLR", histories[0], "with the same lr by hand", histories[1])
    constant = only_parameters(trial.run(trial.optimizer(trial.parameters()), 0, len(factors)))[-1]
    if all(torch.equal(value, constant[name]) for name, value in histories[0][-1].items()):
        params = trial.parameters()
        if all(torch.equal(constant[f"parameter {i}"], param) for i, param in enumerate(params)):
            raise NotAsked(f"it does not move in the first {len(factors)} steps")
        raise OptimizerError("4 steps under LambdaLR are those with a constant learning rate")
    for make in (_one_cycle, _cosine, _plateau):
        optimizer = trial.optimizer(trial.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the constructor may count as a step before the first
            driver = make(optimizer, float(rate))
        before = float(optimizer.param_groups[0]["lr"])
        for step in range(4):
            trial.run(optimizer, step, step + 1)
            driver.step(*([1.0] if make is _plateau else []))
        if float(optimizer.param_groups[0]["lr"]) == before:
            raise OptimizerError(f"{type(driver).__name__} leaves the learning rate at {before}")
        if not all(param.isfinite().all() for param in parameters_of(optimizer)):
            raise OptimizerError(f"inf or NaN after 4 steps under {type(driver).__name__}")


def _one_cycle(optimizer: Optimizer, rate: float) -> Any:
    group = optimizer.param_groups[0]
    betas, momentum = group.get("betas"), group.get("momentum")
    cycles = isinstance(momentum, float) or (isinstance(betas, (tuple, list)) and len(betas) == 2)
    return lr_scheduler.OneCycleLR(optimizer, rate, total_steps=10, cycle_momentum=cycles)


def _cosine(optimizer: Optimizer, rate: float) -> Any:
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)


def _plateau(optimizer: Optimizer, rate: float) -> Any:
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, cooldown=0)


def _rate(trial: Trial) -> Any:
    """The learning rate, if the optimizer has one and uses it."""
    from ....elementwise import ElementwiseOptimizer

    rate = trial.option("lr")
    if rate is None:
        raise NotAsked("its lr is None: it finds one itself")
    optimizer = trial.optimizer(trial.parameters())
    if not isinstance(optimizer, ElementwiseOptimizer):
        return rate
    if "lr" not in inspect.signature(optimizer.coefficients).parameters:
        raise NotAsked("its coefficients do not ask for lr")
    return rate


@check(*FULL)
def check_maximize(trial: Trial) -> None:
    """``maximize=True`` with -g is descent on g, and weights decay in both."""
    made = trial.optimizer(trial.parameters())
    decays = [{}, {"weight_decay": 0.1}] if "weight_decay" in made.param_groups[0] else [{}]
    for decay in decays:
        if "maximize" in made.param_groups[0]:
            optimizer = trial.optimizer(trial.parameters(), maximize=True, **decay)
        elif _takes(trial.make, "maximize"):
            optimizer = trial.make(trial.parameters(), maximize=True)  # type: ignore[call-arg]
            for group in optimizer.param_groups:
                group.update(decay)
        else:
            raise NotAsked("it does not offer maximize")
        up = only_parameters(trial.run(optimizer, gradient=trial.negative))
        down = only_parameters(trial.run(trial.optimizer(trial.parameters(), **decay)))
        said = " (weight_decay=0.1)" if decay else ""
        trial.compare(f"maximize=True with -g{said}", up, "descent on g", down)


def _takes(make: Any, option: str) -> bool:
    """Whether ``make`` names an argument."""
    try:
        return option in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False


@check()
def check_weight_decay(trial: Trial) -> None:
    """Weight decay is that of the group, and without gradients it makes no parameter longer."""
    decay = trial.option("weight_decay")
    if not isinstance(decay, (int, float)) or isinstance(decay, bool):
        raise NotAsked("its weight_decay is no number")
    params = trial.parameters()
    before = [float(param.detach().norm()) for param in params]
    trial.run(trial.optimizer(params, weight_decay=0.1), 0, 2, gradient=trial.zero)
    for i, (param, length) in enumerate(zip(params, before, strict=True)):
        if float(param.detach().norm()) > length * (1 + 1e-9):
            raise OptimizerError(
                f"weight_decay=0.1 and gradients of zero make the norm of parameter {i} grow, in 2 steps, "
                f"from {length:.9g} to {float(param.detach().norm()):.9g}"
            )
    without, with_decay = (
        only_parameters(trial.run(trial.optimizer(trial.parameters(), weight_decay=value)))[-1]
        for value in (0.0, 0.1)
    )
    if all(torch.equal(value, with_decay[name]) for name, value in without.items()):
        start = {f"parameter {i}": param.detach() for i, param in enumerate(trial.parameters())}
        if all(torch.equal(value, without[name]) for name, value in start.items()):
            raise NotAsked(f"it does not move in the first {trial.steps} steps")
        raise OptimizerError(
            f'{trial.steps} steps are the same with group["weight_decay"] = 0 and = 0.1: it is not heeded'
        )
