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
`low_precision_text.py` is the same with a transformer.

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
import runpy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import torchopt_course as optim
from recipes.common.data import Data, DataName, load_data
from recipes.common.loop import train
from recipes.common.model import ModelName, make_model
from recipes.common.pictures import Figure, decorate, figure, plain_log
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.statistics import mean_curve, paired_lead

CLAIM = (
    "Weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
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

    rows: int
    epochs: int
    batch_size: int
    seeds: int


@dataclass(frozen=True)
class SizeOfPictures(Size):
    """And of which pictures, by which network."""

    data: DataName = "fashion-mnist"
    model: ModelName = "cnn"


SIZES = {
    "smoke": SizeOfPictures(rows=300, epochs=2, batch_size=32, seeds=2, data="digits", model="mlp"),
    "gallery": SizeOfPictures(rows=5_000, epochs=5, batch_size=64, seeds=5),
    "full": SizeOfPictures(rows=60_000, epochs=8, batch_size=128, seeds=5),
}


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
        # Characters are counted, not measured: their numbers stay whole.
        answer: Tensor = self.network(inputs.to(self.dtype) if inputs.is_floating_point() else inputs)
        return answer.float()


def watch(optimizer: torch.optim.Optimizer, looks: Collection[int]) -> list[float]:
    """Filled while the optimizer steps: of each step in `looks` the share of the weights that moved."""
    params = optimizer.param_groups[0]["params"]
    steps, before, shares = count(1), list[Tensor](), list[float]()

    def remember(*_: object) -> None:
        before[:] = [param.detach().clone() for param in params] if next(steps) in looks else []

    def compare(*_: object) -> None:
        if before:
            pairs = zip(params, before, strict=True)
            moved = sum(int(((param != old) & (param.grad != 0)).sum()) for param, old in pairs)
            shares.append(moved / sum(int((param.grad != 0).sum()) for param in params))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(compare)
    return shares


def learn_in(way: str, network: nn.Module, data: Data, lr: float, size: Size, seed: int) -> Outcome:
    """Train a new network in one of the ways."""
    dtype, options = WAYS[way]
    model = InPrecision(network, dtype)
    optimizer = optim.Adam(model.parameters(), lr=lr, **options)
    steps = size.epochs * math.ceil(len(data.train_rows) / size.batch_size)
    looks = sorted({max(1, round(steps * part / 40)) for part in range(1, 41)})
    moved = watch(optimizer, looks)
    how: dict[str, Any] = {"epochs": size.epochs, "batch_size": size.batch_size, "seed": seed}
    cosine = CosineAnnealingLR(optimizer, steps)
    measured = list(train(model, optimizer, data, scheduler=cosine, every="batch", **how))
    states = [s for own in optimizer.state.values() for name, s in own.items() if name != "step"]
    kept = sum(tensor.nbytes for tensor in (*model.parameters(), *states))
    weights = sum(param.numel() for param in model.parameters())
    losses = [epoch.train_loss for epoch in measured]
    return Outcome(losses, measured[-1].accuracy, looks, moved, kept / weights)


def judge(claim: str, outcomes: Mapping[str, Sequence[Outcome]]) -> Verdict:
    """The criterion of the docstring on top, point by point."""
    losses = {way: [one.losses[-1] for one in runs] for way, runs in outcomes.items()}
    accuracies = {way: [one.accuracy for one in runs] for way, runs in outcomes.items()}
    behind = {way: paired_lead(losses[way], losses["float32"]) for way in WAYS}
    points = {way: 100 * paired_lead(accuracies[way], accuracies["float32"])[0] for way in WAYS}
    lost, error = behind["bfloat16, nearest"]
    by_chance, kahan = behind["bfloat16, stochastic"][0], behind["bfloat16, Kahan"][0]
    of_16_bits, of_8_bits = points["states bfloat16, stochastic"], points["states 8 bits, stochastic"]
    return Verdict(
        claim,
        lost > 2 * error and max(by_chance, kahan) <= lost / 2 and min(of_16_bits, of_8_bits) >= -0.5,
        f"rounded to the nearest, bfloat16 weights ended with a training loss {lost:+.4f} ± {error:.4f} (one "
        f"standard error) from float32's, by chance {by_chance:+.4f}, with Kahan's compensation "
        f"{kahan:+.4f}; with states of 16 and of 8 bits, rounded by chance, the test accuracy was "
        f"{of_16_bits:+.2f} and {of_8_bits:+.2f} points from float32's",
    )


# Okabe and Ito's, as in `recipes/common/pictures.py`; in the order of the ways.
COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#999999")


def draw(outcomes: Mapping[str, Sequence[Outcome]]) -> Figure:
    """Which weights still move as the rate falls, and how far each is behind float32."""
    picture = figure(11, 4.8)
    moving, losses = picture.subplots(1, 2)
    for (way, runs), color in zip(outcomes.items(), COLORS, strict=True):
        style = {"color": color, "linestyle": "--" if way.startswith("states") else "-", "label": way}
        shares = [100 * share for share in mean_curve(run.moved for run in runs)]
        moving.plot(runs[0].looked, shares, linewidth=1.8, **style)
        mean = mean_curve(run.losses for run in runs)
        losses.plot(range(1, len(mean) + 1), mean, linewidth=1.8, marker=".", **style)
    losses.set_yscale("log")
    plain_log(losses.yaxis)
    losses.set_xticks(range(1, len(mean) + 1))
    decorate(moving, "step", "weights with a gradient that move, %", "The rate falls: who still moves?")
    decorate(losses, "epoch", "training loss (mean of seeds)", "Who still learns?")
    losses.legend(fontsize=8)
    return picture


def compare(
    report: Report, claim: str, learn: Callable[..., Outcome], size: Size, seed: int, **more: Any
) -> None:
    """`learn(way, size, seed)` in all ways; curves, picture, table and verdict."""
    jobs = {way: [(way, size, seed + n) for n in range(size.seeds)] for way in WAYS}
    outcomes = report.train_all(learn, jobs, "ways")
    for way, runs in outcomes.items():
        mean = mean_curve(one.losses for one in runs)
        report.curve(f"training_loss/{way}", "Of each epoch; mean over the seeds.", mean)
    report.picture("who_still_moves", draw(outcomes))
    rows = [
        {
            "way": way,
            "bytes": runs[0].bytes_kept,
            "moved_at_the_end": fmean(one.moved[-3] for one in runs),
            "loss": fmean(one.losses[-1] for one in runs),
            "losses": [one.losses[-1] for one in runs],
            "accuracy": fmean(one.accuracy for one in runs),
            "spread": stdev(one.accuracy for one in runs),
            "accuracies": [one.accuracy for one in runs],
        }
        for way, runs in outcomes.items()
    ]
    columns = {
        "weights, states": "{way}",
        "bytes of\na weight": "{bytes:.1f}",
        "moved shortly\nbefore the end": "{moved_at_the_end:.0%}",
        "training\nloss": "{loss:.4f}",
        f"test accuracy\n({len(outcomes['float32'])} seeds)": "{accuracy:.2%} ± {spread:.2%}",
    }
    report.finish(table_of(rows, columns), rows, judge(claim, outcomes), **more)


def learn(way: str, size: SizeOfPictures, seed: int) -> Outcome:
    """Train on pictures in one way from one seed."""
    data = load_data(size.data, "test").first(size.rows)
    return learn_in(way, make_model(size.model, data, seed), data, 1e-3, size, seed)


def run(report: Report, size: SizeOfPictures, seed: int) -> None:
    """Train in all ways, draw, judge."""
    compare(report, CLAIM, learn, size, seed)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
