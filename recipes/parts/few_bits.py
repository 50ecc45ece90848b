"""One training of `recipes/low_precision.py`: weights and states in some number of bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.loop import train
from recipes.common.model import ModelName, make_model

LR = 1e-3
B, F = torch.bfloat16, torch.float32
# The dtype of the weights, and Adam's options.
WAYS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (F, {}),
    "bfloat16, nearest": (B, {"rounding": "nearest"}),
    "bfloat16, stochastic": (B, {"rounding": "stochastic"}),
    "bfloat16, Kahan": (B, {"rounding": "kahan"}),
    "states bfloat16": (F, {"state_dtype": B}),
    "states bfloat16, stochastic": (F, {"state_dtype": B, "rounding": "stochastic"}),
    "states 8 bits": (F, {"state_dtype": "8bit"}),
    "states 8 bits, stochastic": (F, {"state_dtype": "8bit", "rounding": "stochastic"}),
}


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    data: DataName
    model: ModelName
    rows: int
    epochs: int
    batch_size: int
    seeds: int


@dataclass(frozen=True)
class Job:
    """One training."""

    size: Size
    way: str
    seed: int
    split: Split = "test"


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    losses: list[float]
    """Mean training loss of each epoch."""
    accuracy: float
    """Of the last weights, on the rows that are only measured."""
    looked: list[int]
    """The steps in which weights were watched."""
    moved: list[float]
    """Share of the weights with a gradient that were another number after that step."""
    bytes_kept: float
    """Weights and states, for each weight."""


class InPrecision(nn.Module):
    """A network that computes in the dtype of its weights, and answers in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.network(inputs.to(self.dtype))
        return answer.float()


class Watch:
    """Looks at some steps of an optimizer: which weights move?"""

    def __init__(self, optimizer: torch.optim.Optimizer, looks: Sequence[int]) -> None:
        self.moved: dict[int, float] = dict.fromkeys(looks, math.nan)
        self._step, self._before = 0, list[Tensor]()
        optimizer.register_step_pre_hook(self._look)
        optimizer.register_step_post_hook(self._compare)

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._step += 1
        if self._step in self.moved:
            self._before = [param.detach().clone() for param in optimizer.param_groups[0]["params"]]

    def _compare(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if self._step in self.moved:
            pairs = list(zip(optimizer.param_groups[0]["params"], self._before, strict=True))
            moved = sum(int(((param != old) & (param.grad != 0)).sum()) for param, old in pairs)
            self.moved[self._step] = moved / sum(int((param.grad != 0).sum()) for param, _ in pairs)


@cache  # a worker trains many times
def rows_of(size: Size, split: Split) -> Data:
    return load_data(size.data, split).first(size.rows)


def learn(job: Job) -> Outcome:
    """Train in one way from one seed."""
    size, data = job.size, rows_of(job.size, job.split)
    dtype, options = WAYS[job.way]
    torch.manual_seed(job.seed)
    model = InPrecision(make_model(size.model, data), dtype)
    optimizer = optim.Adam(model.parameters(), lr=LR, **options)
    steps = size.epochs * math.ceil(len(data.train_rows) / size.batch_size)
    watch = Watch(optimizer, sorted({max(1, round(steps * part / 40)) for part in range(1, 41)}))
    epochs = list(
        train(
            model, optimizer, data, epochs=size.epochs, batch_size=size.batch_size, seed=job.seed,
            scheduler=CosineAnnealingLR(optimizer, steps), every="batch",
        )
    )  # fmt: skip
    states = [s for own in optimizer.state.values() for name, s in own.items() if name != "step"]
    kept = sum(tensor.nbytes for tensor in (*model.parameters(), *states))
    weights = sum(param.numel() for param in model.parameters())
    return Outcome(
        [epoch.train_loss for epoch in epochs],
        epochs[-1].accuracy,
        list(watch.moved),
        list(watch.moved.values()),
        kept / weights,
    )
