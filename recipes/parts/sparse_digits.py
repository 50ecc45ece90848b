"""Digits as sparse features, and one training on them.

Each pair of a pixel and a grey level is a feature, and a row has it or not.
64 pixels of 17 levels make 1088 features. A row of features is a row of their numbers, 17 times the pixel
plus its level, as `EmbeddingBag` wants it; a pixel that is not seen has the number `HIDDEN`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchopt_course as optim
from recipes.common.data import Split, load_data

PIXELS, LEVELS = 64, 17
FEATURES = PIXELS * LEVELS
HIDDEN = FEATURES  # EmbeddingBag skips it: it is the model's `padding_idx`
RARE_SHARE = 0.25
CLASSES = 10
BATCH = 16

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "SGD": optim.SGD,
    "Momentum": optim.Momentum,
    "Adagrad": optim.Adagrad,
    "Adam": optim.Adam,
    "SparseAdam": torch.optim.SparseAdam,
}


def features_of(pixels: Tensor) -> Tensor:
    """The feature of each pixel: 17 times its number, plus its level; pixels are 0, 1/16, ..., 1."""
    return (pixels * (LEVELS - 1)).round().long() + LEVELS * torch.arange(PIXELS)


def hide(features: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel is seen with its own probability; the others become `HIDDEN`."""
    return features.where(torch.rand(features.shape, generator=generator) < seen, HIDDEN)


def counts_of(features: Tensor) -> Tensor:
    """In how many rows each feature is."""
    return torch.bincount(features.flatten(), minlength=FEATURES + 1)[:FEATURES]


def rarity(features: Tensor, counts: Tensor) -> Tensor:
    """Of each row: mean of 1 / count over the features that it has; 0 for a row without any."""
    there = features != HIDDEN
    weights = there / counts[features.where(there, 0)].clamp(min=1)
    return weights.sum(dim=1) / there.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class Rows:
    """What is trained and measured: rows x 64 features, targets, and which of the measured rows are rare."""

    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
    rare: Tensor
    counts: Tensor
    """In how many training rows each feature is."""


@lru_cache(maxsize=4)
def rows_of(power: float, seed: int, split: Split, train_rows: int | None) -> Rows:
    """The digits, with the pixel of rank r seen with probability r^-power; a random order of pixels.

    Rare rows are the quarter of the measured rows whose features are the rarest, see `rarity`.
    """
    digits = load_data("digits", split)
    if train_rows is not None:
        digits = digits.first(train_rows)
    generator = torch.Generator().manual_seed(seed)
    seen = torch.empty(PIXELS)
    seen[torch.randperm(PIXELS, generator=generator)] = torch.arange(1.0, PIXELS + 1) ** -power
    train = hide(features_of(digits.train_inputs), seen, generator)
    test = hide(features_of(digits.eval_inputs), seen, generator)
    counts = counts_of(train)
    by_rarity = rarity(test, counts).argsort(descending=True, stable=True)
    rare = torch.zeros(len(test), dtype=torch.bool)
    rare[by_rarity[: round(RARE_SHARE * len(test))]] = True
    return Rows(train, digits.train_targets, test, digits.eval_targets, rare, counts)


# -- one training --------------------------------------------------------------------------------------------


def make_model(sparse: bool) -> nn.EmbeddingBag:
    """Softmax regression: the scores of a row are the sum of its features' weights. Zero at first."""
    model = nn.EmbeddingBag(FEATURES + 1, CLASSES, mode="sum", sparse=sparse, padding_idx=HIDDEN)
    nn.init.zeros_(model.weight)
    return model


@dataclass(frozen=True)
class Job:
    """One training."""

    power: float
    """How the pixels are hidden, see `rows_of`."""
    optimizer: str
    lr: float
    seed: int
    split: Split
    train_rows: int | None
    passes: int
    measure_every: int
    """0: only at the end."""


@dataclass(frozen=True)
class Outcome:
    """What one training came to; losses are infinite and the accuracy 0 where it diverged."""

    loss: float
    rare_loss: float
    accuracy: float
    rare_accuracy: float
    common_accuracy: float
    curve: list[tuple[int, float]]
    """Steps and test accuracy."""
    movement: list[float]
    """Of each feature: how far its ten weights are from where they began."""
    effective_steps: list[float]
    """Of each feature: what a gradient is multiplied with in the end, mean of ten; empty if that is `lr`."""


DIVERGED = Outcome(math.inf, math.inf, 0.0, 0.0, 0.0, [], [], [])


def train(job: Job) -> Outcome:
    """Forward, backward, step; and the measurements."""
    rows = rows_of(job.power, job.seed, job.split, job.train_rows)
    model = make_model(sparse=job.optimizer != "Adam")
    optimizer = OPTIMIZERS[job.optimizer](model.parameters(), lr=job.lr)  # type: ignore[call-arg]
    shuffler = torch.Generator().manual_seed(job.seed)
    curve, step = [], 0
    for _ in range(job.passes):
        for batch in torch.randperm(len(rows.train), generator=shuffler).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(rows.train[batch]), rows.train_targets[batch])
            loss.backward()
            optimizer.step()
            step += 1
            if job.measure_every and step % job.measure_every == 0:
                curve.append((step, float(measure(model, rows)[1].mean())))
    losses, right = measure(model, rows)
    if not losses.isfinite().all():
        return DIVERGED
    return Outcome(
        loss=float(losses.mean()),
        rare_loss=float(losses[rows.rare].mean()),
        accuracy=float(right.mean()),
        rare_accuracy=float(right[rows.rare].mean()),
        common_accuracy=float(right[~rows.rare].mean()),
        curve=curve,
        movement=model.weight.detach()[:FEATURES].norm(dim=1).tolist(),
        effective_steps=effective_steps(job, model.weight, optimizer),
    )


@torch.no_grad()
def measure(model: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """Of each row: its loss, and 1 if it is classified rightly."""
    scores = model(rows.test)
    losses = F.cross_entropy(scores, rows.test_targets, reduction="none")
    return losses, (scores.argmax(dim=1) == rows.test_targets).double()


def effective_steps(job: Job, weight: Tensor, optimizer: torch.optim.Optimizer) -> list[float]:
    """lr / √(what the gradients' squares came to): Adagrad's sum, Adam's unbiased mean."""
    state = optimizer.state[weight]
    if "sum" in state:
        squares = state["sum"]
    elif "exp_avg_sq" in state:
        squares = state["exp_avg_sq"] / (1 - optimizer.param_groups[0]["betas"][1] ** float(state["step"]))
    else:
        return []
    steps = job.lr / (squares[:FEATURES].sqrt() + optimizer.param_groups[0]["eps"])
    return [float(x) for x in steps.mean(dim=1)]
