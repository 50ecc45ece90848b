"""The way of SGD beside that of gradient descent, where it can be seen: on the loss of two weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import torchopt_course as optim
from recipes.common.data import Data
from recipes.common.pictures import COLORS, Figure, figure, stars

STEPS, LR = 150, 1.0


def two_features(data: Data) -> tuple[Tensor, Tensor]:
    """Ones and twos by their two principal components, rows x 2, and which are twos."""
    rows = (data.train_targets == 1) | (data.train_targets == 2)
    pixels = data.train_inputs[rows] - data.train_inputs[rows].mean(dim=0)
    _, lengths, directions = torch.linalg.svd(pixels, full_matrices=False)
    directions = directions * directions.sum(dim=1, keepdim=True).sign()  # an SVD leaves the signs open
    features = pixels @ directions[:2].T / (lengths[:2] / len(pixels) ** 0.5)
    return features, (data.train_targets[rows] == 2).float()


def path(features: Tensor, targets: Tensor, batch_size: int, seed: int) -> Tensor:
    """Logistic regression with SGD: both weights before the first step and after each."""
    weights = torch.tensor([-2.0, 2.5], requires_grad=True)
    optimizer = optim.SGD([weights], lr=LR)
    dice = torch.Generator().manual_seed(seed)
    places = [weights.detach().clone()]
    for _ in range(STEPS):
        rows = torch.randperm(len(features), generator=dice)[:batch_size]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(features[rows] @ weights, targets[rows]).backward()
        optimizer.step()
        places.append(weights.detach().clone())
    return torch.stack(places)


def minimum(features: Tensor, targets: Tensor) -> Tensor:
    """The two weights at which the loss of all rows is the smallest."""
    weights = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        mean = F.binary_cross_entropy_with_logits(features @ weights, targets)
        mean.backward()
        return mean

    optimizer.step(loss)
    return weights.detach()


def draw_paths(data: Data, seed: int) -> Figure:
    """All rows, sixteen, one: the same start and learning rate on the same ground."""
    features, targets = two_features(data)
    picture = figure(12, 4.6)
    picture.suptitle(f"{STEPS} steps at the learning rate {LR}: two weights that tell 2 from 1")
    sizes = {"gradient descent, all rows": len(features), "mini-batches of 16": 16, "single rows": 1}
    paths = {name: path(features, targets, size, seed) for name, size in sizes.items()}
    lowest = minimum(features, targets)
    everywhere = torch.cat([*paths.values(), lowest[None]])
    low, high = everywhere.min(dim=0).values - 0.5, everywhere.max(dim=0).values + 0.5
    x, y = (torch.linspace(float(a), float(b), 80) for a, b in zip(low, high, strict=True))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    scores = grid @ features.T
    ground = F.binary_cross_entropy_with_logits(scores, targets.expand_as(scores), reduction="none").mean(
        dim=-1
    )
    for axes, (name, places) in zip(picture.subplots(1, 3, sharey=True), paths.items(), strict=True):
        axes.contourf(x, y, ground, 18, cmap="Greys_r", vmin=-float(ground.max()))
        axes.plot(*places.T, "o-", color=COLORS["Momentum"], markersize=2.5, linewidth=1)
        axes.plot(*places[0], "o", color="white", markeredgecolor="black", markersize=8)
        stars(axes, [lowest])
        axes.set_title(name)
        axes.set_xlabel("first weight")
    picture.axes[0].set_ylabel("second weight")
    return picture
