"""Pictures of landscapes: the ground, the paths on it, and their animation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from recipes.common.pictures import COLORS as OPTIMIZER_COLORS
from recipes.common.pictures import Axes, Figure, panels, stars
from recipes.common.tensorboard import rendered
from recipes.parts.ground import Walk
from torchopt_course.playground.landscapes import Landscape

COLORS = {**OPTIMIZER_COLORS, "Gradient descent": OPTIMIZER_COLORS["SGD"]}


def draw_ground(axes: Axes, landscape: Landscape) -> None:
    """Height in bands of equal ratio, the darker the deeper; a star at each minimum, a ring at the start."""
    left, right, bottom, top = landscape.view
    x, y = torch.linspace(left, right, 300), torch.linspace(bottom, top, 300)
    height = landscape.height(*torch.meshgrid(x, y, indexing="xy")) - landscape.lowest
    levels = (height + 1e-3 * height.max()).log10()
    bands = ((levels - levels.min()) / (levels.max() - levels.min()) * 12).floor()
    axes.imshow(
        bands.numpy(), extent=landscape.view, origin="lower", aspect="auto", interpolation="nearest",
        cmap="Greys_r", vmin=-14, vmax=12.5,
    )  # fmt: skip
    stars(axes, landscape.minima)
    axes.plot(*landscape.start, "o", color="white", markeredgecolor="black", markersize=8)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.locator_params(nbins=6)


def draw_paths(
    landscapes: Mapping[str, Landscape], walks: Mapping[str, Mapping[str, Walk]], rows: int
) -> tuple[Figure, list[tuple[Any, Any, Any]]]:
    """All optimizers on these landscapes; and the lines, heads and points that an animation redraws."""
    columns = len(landscapes) // rows
    picture, frames = panels(12, 4.2 * rows, rows, columns, squeeze=False)
    moving = []
    for axes, (name, landscape) in zip(frames.flat, landscapes.items(), strict=True):
        draw_ground(axes, landscape)
        for optimizer_name, way in walks[name].items():
            color, points = COLORS[optimizer_name], way.path.numpy()
            (line,) = axes.plot(*points.T, color=color, linewidth=1.8, alpha=0.9, label=optimizer_name)
            (head,) = axes.plot(*points[-1:].T, "o", color=color, markeredgecolor="white", markersize=8)
            moving.append((line, head, points))
        axes.set_title(landscape.name, fontweight="bold", loc="left")
        lesson = fill(landscape.lesson.partition(". ")[0].rstrip("."), 46)
        axes.set_title(lesson, fontsize=9.5, loc="right")
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=12)
    return picture, moving


def animate(picture: Figure, moving: list[tuple[Any, Any, Any]], path: Path, frames: int) -> None:
    """The paths as they grow, slowly at first, for most happens early."""
    from PIL import Image

    picture.set_layout_engine("none")  # all stays where it is
    clock = picture.text(0.008, 0.012, "", fontsize=14)
    steps = len(moving[0][-1]) - 1
    images = []
    for frame in range(frames):
        now = round(steps * (frame / max(frames - 1, 1)) ** 2)
        clock.set_text(f"step {now}")
        for line, head, points in moving:
            line.set_data(*points[: now + 1].T)
            head.set_data(*points[now : now + 1].T)
        images.append(Image.fromarray(rendered(picture, dpi=75)[1]))  # 900 pixels wide
    palette = images[-1].quantize(256, kmeans=1)  # one for all: what stands still is not stored again
    small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    lasting = [120] * (frames - 1) + [2000]  # milliseconds
    small[0].save(path, save_all=True, append_images=small[1:], duration=lasting, loop=0, optimize=True)
