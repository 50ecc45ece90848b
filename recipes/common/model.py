"""The networks that a run may train, made for the size of the pictures."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn

from recipes.common.data import Data

ModelName = Literal["mlp", "lenet", "cnn"]


def mlp(side: int, classes: int) -> nn.Module:
    """One hidden layer: 64-64-10 for the digits (4,810 weights), 784-256-10 for Fashion-MNIST (203,530)."""
    width = 64 if side == 8 else 256
    hidden, output = nn.Linear(side * side, width), nn.Linear(width, classes)
    return nn.Sequential(OrderedDict(hidden=hidden, relu=nn.ReLU(), output=output))


def lenet(side: int, classes: int) -> nn.Module:
    """Two 3 x 3 convolutions with batch norm, and dropout: 10,678 weights for the digits."""
    left = side // 4  # after two poolings
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * left * left, 120), nn.ReLU(), nn.Dropout(0.25),
        nn.Linear(120, classes),
    )  # fmt: skip


def cnn(side: int, classes: int) -> nn.Module:
    """Two plain 5 x 5 convolutions and one hidden layer: 215,370 weights for Fashion-MNIST."""
    left = side // 4
    model = nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * left * left, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip
    return model.to(memory_format=torch.channels_last)  # faster on CPUs


MODELS = {"mlp": mlp, "lenet": lenet, "cnn": cnn}


def make_model(name: ModelName, data: Data, seed: int) -> nn.Module:
    """The named network with the seed's initial weights, on the CPU: the same on every device."""
    torch.manual_seed(seed)
    return MODELS[name](data.side, len(data.classes))
