"""What the model sees: some rows with its answers, and which kinds it takes for which."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recipes.common.data import Data
from recipes.common.pictures import Figure, figure

SAMPLES = 24
SAMPLE_COLUMNS = 6


def sample_figure(data: Data, predicted: Tensor) -> Figure:
    """The first rows as pictures; a wrong answer is red and followed by the right one."""
    side = frame = data.side  # as much room for two lines of words as for the picture
    lines = -(-SAMPLES // SAMPLE_COLUMNS)
    pictures = data.eval_inputs[:SAMPLES].cpu().view(-1, side, side)
    cell = side + frame
    # One large picture, which is drawn ten times as fast as one after the other.
    wall = torch.full((lines * cell, SAMPLE_COLUMNS * cell), pictures.min().item())
    drawn = figure(SAMPLE_COLUMNS * 1.2, lines * 1.2, layout="none")
    axes = drawn.add_axes((0, 0, 1, 1))
    for i, picture in enumerate(pictures):
        top, left = i // SAMPLE_COLUMNS * cell + frame, i % SAMPLE_COLUMNS * cell + frame // 2
        wall[top : top + side, left : left + side] = picture
        said, true = data.classes[predicted[i]], data.classes[data.eval_targets[i]]
        words, color = (said, "black") if said == true else (f"{said}\n({true})", "red")
        x, y = left + side / 2 - 0.5, top - 0.5 - side / 25
        axes.text(x, y, words, ha="center", va="bottom", fontsize=10, color=color)
    axes.imshow(wall.numpy(), cmap="gray_r")
    axes.set_axis_off()
    return drawn


def confusion_figure(data: Data, predicted: Tensor) -> Figure:
    """How often each kind was taken for each other; shades are shares of a row."""
    kinds = len(data.classes)
    pairs = data.eval_targets.cpu() * kinds + predicted
    counts = torch.bincount(pairs, minlength=kinds * kinds).view(kinds, kinds)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    drawn = figure(5, 4.8, layout="none")  # a card is half as wide: larger letters
    axes = drawn.add_axes((0.2, 0.2, 0.78, 0.78))
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in counts.nonzero().tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        words = str(int(counts[row, column]))
        axes.text(column, row, words, ha="center", va="center", color=color, fontsize=9)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right"} if max(map(len, data.classes)) > 2 else {}
    axes.set_xticks(range(kinds), data.classes, **turned)
    axes.set_yticks(range(kinds), data.classes)
    axes.set(xlabel="answer", ylabel="truth")
    return drawn
