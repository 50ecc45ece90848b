"""The optimizers by name, each with a learning rate that suits; and how to step any of torch's."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Literal

import torch

import torchopt_course as optim

OptimizerName = Literal["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"]

OPTIMIZERS: dict[OptimizerName, type[torch.optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": optim.Momentum,
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}

# For this network, these data and 60 epochs; chosen on the validation split, never on the test part, by
#     python recipes/choose_lr.py
LEARNING_RATES: dict[OptimizerName, float] = {
    "sgd": 0.1,
    "momentum": 0.01,
    "adagrad": 0.03,
    "rmsprop": 0.001,
    "adam": 0.001,
    "adamw": 0.001,
}


def learning_rate(name: OptimizerName, lr: float | None) -> float:
    """The rate asked for, or the one chosen for the optimizer."""
    return LEARNING_RATES.get(name, 0.001) if lr is None else lr


def make_optimizer(
    name: OptimizerName, parameters: Iterable[torch.nn.Parameter], lr: float, **options: Any
) -> torch.optim.Optimizer:
    """The named optimizer with its own defaults, apart from the learning rate and `options`."""
    return OPTIMIZERS[name](parameters, lr=lr, **options)  # type: ignore[call-arg]  # torch's base takes no lr


def options_of(name: OptimizerName) -> set[str]:
    """The names that the optimizer's constructor takes."""
    return set(inspect.signature(OPTIMIZERS[name]).parameters)


def weights_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.nn.Parameter]:
    """The weights that the optimizer trains, by name. Raises `ValueError` if the model has none of them."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    weights = {name: p for name, p in model.named_parameters() if id(p) in trained}
    if not weights:
        raise ValueError(f"{type(optimizer).__name__} trains none of the weights of this model")
    return weights


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Does `step` ask for a function that computes the loss again, as LBFGS's and SAM's do?"""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def set_mode(model: torch.nn.Module, optimizer: torch.optim.Optimizer, training: bool) -> None:
    """To train or to be measured. Optimizers with other weights for either, the schedule-free, hear of it."""
    model.train(training)
    getattr(optimizer, "train" if training else "eval", lambda: None)()
