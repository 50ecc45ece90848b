"""One training in several precisions, under the same conditions for all of them, and what comes of it.

Adam's learning rate falls to zero in half a cosine: small steps at the end are where it is won. Weights are
float32 or bfloat16, and then forward and backward pass are too; states are float32, bfloat16, or 8 bits in
blocks of 256 with a scale each. Everybody gets the same initial weights, and rows in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import torchopt_course as optim
from recipes.common.data import Data
from recipes.common.loop import train
from recipes.common.pictures import Figure, decorate, figure, plain_log
from recipes.common.report import Report, Verdict
from recipes.common.table import table_of
from recipes.parts.statistics import mean_curve, paired_lead

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


def learn_in(way: str, network: nn.Module, data: Data, lr: float, size: Size, seed: int) -> Outcome:
    """Train a new network in one of the ways."""
    dtype, options = WAYS[way]
    model = InPrecision(network, dtype)
    optimizer = optim.Adam(model.parameters(), lr=lr, **options)
    steps = size.epochs * math.ceil(len(data.train_rows) / size.batch_size)
    watch = Watch(optimizer, sorted({max(1, round(steps * part / 40)) for part in range(1, 41)}))
    how: dict[str, Any] = {"epochs": size.epochs, "batch_size": size.batch_size, "seed": seed}
    cosine = CosineAnnealingLR(optimizer, steps)
    measured = list(train(model, optimizer, data, scheduler=cosine, every="batch", **how))
    states = [s for own in optimizer.state.values() for name, s in own.items() if name != "step"]
    kept = sum(tensor.nbytes for tensor in (*model.parameters(), *states))
    weights = sum(param.numel() for param in model.parameters())
    losses = [epoch.train_loss for epoch in measured]
    moved = watch.moved
    return Outcome(losses, measured[-1].accuracy, list(moved), list(moved.values()), kept / weights)


def judge(claim: str, outcomes: Mapping[str, Sequence[Outcome]]) -> Verdict:
    """The criterion of the docstring of `recipes/low_precision.py`, point by point."""
    losses = {way: [one.losses[-1] for one in runs] for way, runs in outcomes.items()}
    accuracies = {way: [one.accuracy for one in runs] for way, runs in outcomes.items()}
    behind = {way: paired_lead(losses[way], losses["float32"]) for way in WAYS}
    points = {way: 100 * paired_lead(accuracies[way], accuracies["float32"])[0] for way in WAYS}
    lost, error = behind["bfloat16, nearest"]
    cured = all(behind[f"bfloat16, {how}"][0] <= lost / 2 for how in ("stochastic", "Kahan"))
    frugal = all(points[f"states {what}, stochastic"] >= -0.5 for what in ("bfloat16", "8 bits"))
    still = fmean(run.moved[-3] for run in outcomes["bfloat16, nearest"])
    said = ", ".join(f"{way} {points[way]:+.2f}" for way in WAYS if way != "float32")
    return Verdict(
        claim,
        lost > 2 * error and cured and frugal,
        f"rounded to the nearest, bfloat16 weights ended with a training loss {lost:+.4f} ± {error:.4f} (one "
        f"standard error) from float32's, by chance {behind['bfloat16, stochastic'][0]:+.4f}, with Kahan's "
        f"compensation {behind['bfloat16, Kahan'][0]:+.4f}; shortly before the end {still:.0%} of the "
        f"weights rounded to the nearest still moved; test accuracy against float32's, in points: {said}",
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
