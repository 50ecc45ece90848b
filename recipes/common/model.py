"""The network that every run trains."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def mlp() -> nn.Module:
    """64 pixels, 64 hidden units, 10 digits: 4,810 weights."""
    return nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(64, 64),
            relu=nn.ReLU(),
            output=nn.Linear(64, 10),
        )
    )
