"""Pictures of landscapes: the ground, the paths on it, their animation, and velocity as arrows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import torchopt_course as optim
from recipes.common.pictures import COLORS as OPTIMIZER_COLORS
from recipes.common.pictures import Axes, Figure, panels, stars
from recipes.common.tensorboard import rendered
from recipes.parts.ground import LANDSCAPES, Walk, walk
from torchopt_course.playground.landscapes import Landscape

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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
        axes.set_title(landscape.lesson, fontsize=9.5, loc="right")
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


def show_gif(writer: SummaryWriter, tag: str, path: Path) -> None:
    """TensorBoard shows a GIF as an image; `add_video` would want another package to make one."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(path) as image:
        width, height = image.size
    image = Summary.Image(encoded_image_string=path.read_bytes(), width=width, height=height, colorspace=3)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), 0)


def draw_velocity(lr: float = 0.04, steps: int = 14) -> Figure:
    """Gradient descent and momentum at one learning rate, each step as the sum of its arrows."""
    ravine = LANDSCAPES["ravine"]
    picture, (plain, rolling) = panels(12, 5, columns=2)
    picture.suptitle(
        f"{steps} steps at the learning rate η = {lr}: along the floor velocity adds up, across it cancels"
    )
    for axes, beta in (plain, 0.0), (rolling, 0.8):
        draw_ground(axes, ravine)
        path = walk(ravine, partial(optim.SGD, momentum=beta), [lr], steps)[0].path
        moves = path.diff(dim=0)
        kept = beta * torch.cat([torch.zeros(1, 2), moves[:-1]])  # a step is -η v = -η β v_before - η g
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
        axes.plot(*path.T, ".", color="black", markersize=7)
        if beta:
            color = COLORS["Momentum"]
            axes.quiver(*path[:-1].T, *kept.T, color=color, label="velocity kept, -ηβv", **arrows)
        turn = path[:-1] + kept
        axes.quiver(*turn.T, *(moves - kept).T, color=COLORS["Adam"], label="gradient, -ηg", **arrows)
        axes.set_title(f"Momentum, β = {beta}" if beta else "Gradient descent")
        axes.legend(loc="lower right")
    return picture
