"""The networks that a run may train."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

ModelName = Literal["mlp", "lenet"]


def mlp() -> nn.Module:
    """64 pixels, 64 hidden units, 10 digits: 4,810 weights."""
    return nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(64, 64),
            relu=nn.ReLU(),
            output=nn.Linear(64, 10),
        )
    )


def lenet() -> nn.Module:
    """The digits as pictures of 8 x 8, two convolutions with batch norm, dropout: 13,000 weights."""
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 120), nn.ReLU(), nn.Dropout(0.25), nn.Linear(120, 10)),
    )


MODELS = {"mlp": mlp, "lenet": lenet}
