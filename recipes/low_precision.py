"""How few bits can a training do with? `python recipes/low_precision.py`.

bfloat16 has float32's range and 8 binary digits. A weight of 16 bits that takes a step of less than half of
its last place is rounded back to where it was, in each step anew: it has stopped learning, however long the
training goes on. Two cures, as options of every optimizer of torchopt_course: rounding up or down by chance,
so that the mean is right, and Kahan's compensation, which keeps what was rounded away in 16 bits more. A mean
of squares with β2 = 0.999 moves by a thousandth of itself in a step, and is stored in 16 or in 8 bits here.

Experiment: a convolutional network learns Fashion-MNIST with Adam, whose learning rate falls to zero in half
a cosine: small steps at the end are where it is won. Weights are float32 or bfloat16, and then forward and
backward pass are too; states are float32, bfloat16, or 8 bits in blocks of 256 with a scale each. Everybody
gets the same initial weights, rows in the same order, and the rate that suits float32.

The verdict, written before any run but pilots on validation rows. The claim is borne out if

1. bfloat16 weights rounded to the nearest end with a higher training loss than float32's by more than two
   standard errors of the difference, seed by seed, and
2. the same weights rounded by chance, and with Kahan's compensation, make up for at least half of that, and
3. float32 weights with states of 16 and of 8 bits, rounded by chance, end with a test accuracy that is not
   more than half a point below float32's.

gallery takes some ten minutes, full hours.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import torchopt_course as optim
from recipes.common.data import Data, DataName, Split, load_data
from recipes.common.loop import train
from recipes.common.model import ModelName, make_model
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table
from recipes.parts.low_precision_picture import draw

CLAIM = (
    "Weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
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


SIZES = {
    "smoke": Size("digits", "mlp", rows=300, epochs=2, batch_size=32, seeds=2),
    "gallery": Size("fashion-mnist", "cnn", rows=6_000, epochs=6, batch_size=64, seeds=5),
    "full": Size("fashion-mnist", "cnn", rows=60_000, epochs=8, batch_size=128, seeds=5),
}


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


def difference(of: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Seed by seed: the mean, and its standard error."""
    each = [one - other for one, other in zip(of, reference, strict=True)]
    return fmean(each), stdev(each) / math.sqrt(len(each))


def judge(outcomes: Mapping[str, Sequence[Outcome]]) -> Verdict:
    """The criterion of the docstring on top, point by point."""
    losses = {way: [one.losses[-1] for one in runs] for way, runs in outcomes.items()}
    accuracies = {way: [one.accuracy for one in runs] for way, runs in outcomes.items()}
    behind = {way: difference(losses[way], losses["float32"]) for way in WAYS}
    points = {way: 100 * difference(accuracies[way], accuracies["float32"])[0] for way in WAYS}
    lost, error = behind["bfloat16, nearest"]
    cured = all(behind[f"bfloat16, {how}"][0] <= lost / 2 for how in ("stochastic", "Kahan"))
    frugal = all(points[f"states {what}, stochastic"] >= -0.5 for what in ("bfloat16", "8 bits"))
    still = fmean(run.moved[-3] for run in outcomes["bfloat16, nearest"])
    said = ", ".join(f"{way} {points[way]:+.2f}" for way in WAYS if way != "float32")
    return Verdict(
        CLAIM,
        lost > 2 * error and cured and frugal,
        f"rounded to the nearest, bfloat16 weights ended with a training loss {lost:+.4f} ± {error:.4f} (one "
        f"standard error) from float32's, by chance {behind['bfloat16, stochastic'][0]:+.4f}, with Kahan's "
        f"compensation {behind['bfloat16, Kahan'][0]:+.4f}; shortly before the end {still:.0%} of the "
        f"weights rounded to the nearest still moved; test accuracy against float32's, in points: {said}",
    )


def run(report: Report, size: Size, seed: int) -> None:
    """Train in all ways, draw, judge."""
    seeds = range(seed, seed + size.seeds)
    learnt = iter(report.train_all(learn, [Job(size, way, seed) for way in WAYS for seed in seeds], "ways"))
    outcomes = {way: [next(learnt) for _ in seeds] for way in WAYS}
    for way, runs in outcomes.items():
        mean = [fmean(values) for values in zip(*(one.losses for one in runs), strict=True)]
        words = "Mean over the seeds, of every epoch."
        report.curve(f"training_loss/{way.replace(', ', '_').replace(' ', '_')}", words, mean)
    report.picture("who_still_moves", draw(outcomes))
    rows: list[dict[str, Any]] = [
        {
            "way": way,
            "bytes": runs[0].bytes_kept,
            "losses": [one.losses[-1] for one in runs],
            "accuracies": [one.accuracy for one in runs],
            "moved_at_the_end": fmean(one.moved[-3] for one in runs),
        }
        for way, runs in outcomes.items()
    ]
    lines = [
        (
            row["way"],
            f"{row['bytes']:.1f}",
            f"{row['moved_at_the_end']:.0%}",
            f"{fmean(row['losses']):.4f}",
            f"{fmean(row['accuracies']):.2%} ± {stdev(row['accuracies']):.2%}",
        )
        for row in rows
    ]
    head = (
        "weights, states", "bytes of\na weight", "moved shortly\nbefore the end", "training\nloss",
        f"test accuracy\n({size.seeds} seeds)",
    )  # fmt: skip
    report.finish(table(head, lines), rows, judge(outcomes), data_sha256=rows_of(size, "test").sha256())


if __name__ == "__main__":
    main(__doc__, SIZES, run)
