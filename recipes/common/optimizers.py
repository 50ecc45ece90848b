"""The optimizers by name, each with the learning rate that suits the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

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
    return LEARNING_RATES[name] if lr is None else lr


def make_optimizer(
    name: OptimizerName, parameters: Iterable[torch.nn.Parameter], lr: float
) -> torch.optim.Optimizer:
    """The named optimizer with its own defaults, apart from the learning rate."""
    return OPTIMIZERS[name](parameters, lr=lr)  # type: ignore[call-arg]  # torch's base class takes no lr
