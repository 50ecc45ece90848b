"""Pictures of landscapes: the ground, the paths on it, their animation, and velocity as arrows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import torchopt_course as optim
from recipes.common.pictures import COLORS as OPTIMIZER_COLORS
from recipes.common.pictures import Axes, Figure, figure, stars
from recipes.parts.ground import LANDSCAPES, Landscape, Walk

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLORS = {**OPTIMIZER_COLORS, "Gradient descent": OPTIMIZER_COLORS["SGD"]}
Walks = Mapping[str, Mapping[str, Walk]]
"""By the landscape's name and the optimizer's."""


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


def draw_walks(axes: Axes, landscape: Landscape, walks: Mapping[str, Walk]) -> list[tuple[Any, Any, Any]]:
    """The paths on their ground; the lines, the heads and the points they stand for, to be redrawn."""
    draw_ground(axes, landscape)
    drawn = []
    for name, walk in walks.items():
        color = COLORS[name]
        path = walk.path.numpy()
        (line,) = axes.plot(*path.T, color=color, linewidth=1.8, alpha=0.9, label=name)
        (head,) = axes.plot(*path[-1:].T, "o", color=color, markeredgecolor="white", markersize=8)
        drawn.append((line, head, path))
    return drawn


def draw_paths(walks: Walks) -> tuple[Figure, list[tuple[Any, Any, Any]]]:
    """All optimizers on all landscapes; and the lines, heads and points that an animation redraws."""
    picture = figure(12, 8.4)
    moving = []
    for axes, (name, landscape) in zip(picture.subplots(2, 3).flat, LANDSCAPES.items(), strict=True):
        moving += draw_walks(axes, landscape, walks[name])
        axes.set_title(name[0].upper() + name[1:], fontweight="bold", loc="left")
        axes.set_title(landscape.failure, fontsize=9.5, loc="right")
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=12)
    return picture, moving


def animate(walks: Walks, path: Path, frames: int) -> None:
    """The paths as they grow, slowly at first, for most happens early."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    picture, moving = draw_paths(walks)
    picture.set_dpi(75)  # 900 pixels wide
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    picture.set_layout_engine("none")  # all stays where it is
    clock = picture.text(0.008, 0.012, "", fontsize=14)
    steps = max(len(points) for *_, points in moving) - 1
    images = []
    for frame in range(frames):
        now = round(steps * (frame / max(frames - 1, 1)) ** 2)
        clock.set_text(f"step {now}")
        for line, head, points in moving:
            line.set_data(*points[: now + 1].T)
            head.set_data(*points[now : now + 1].T)
        canvas.draw()
        pixels = canvas.buffer_rgba()
        images.append(Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB"))
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


def draw_turned(landscapes: Mapping[str, Landscape], walks: Walks) -> Figure:
    """The same ravine along the axes and across them, at the same learning rates."""
    picture = figure(12, 5)
    picture.suptitle(
        "The axes matter to optimizers that scale each coordinate by itself, not to gradient descent"
    )
    titles = {"ravine": "steps to the target, best rates", "turned ravine": "the same rates"}
    for axes, (name, title) in zip(picture.subplots(1, 2), titles.items(), strict=True):
        drawn = draw_walks(axes, landscapes[name], walks[name])
        for (line, _, _), walk in zip(drawn, walks[name].values(), strict=True):
            count = f"{walk.steps_to_target:.0f}" if math.isfinite(walk.steps_to_target) else "never"
            line.set_label(f"{line.get_label()}: {count}")
        axes.set_title(f"{name[0].upper()}{name[1:]}: {title}")
        axes.legend(loc="lower right", fontsize=9)
    return picture


def draw_velocity(ravine: Landscape, lr: float = 0.04, momentum: float = 0.8, steps: int = 14) -> Figure:
    """Gradient descent and momentum at one learning rate, each step as the sum of its arrows."""
    picture = figure(12, 5)
    picture.suptitle(
        f"{steps} steps at the learning rate η = {lr}: along the floor velocity adds up, across it cancels"
    )
    for axes, beta in zip(picture.subplots(1, 2), (0.0, momentum), strict=True):
        draw_ground(axes, ravine)
        point = torch.tensor(ravine.start, dtype=torch.float64, requires_grad=True)
        optimizer = optim.SGD([point], lr=lr, momentum=beta)
        places, pulls = [point.detach().clone()], []
        for _ in range(steps):
            optimizer.zero_grad()
            ravine.height(point[0], point[1]).backward()
            assert point.grad is not None
            pulls.append(-lr * point.grad)
            optimizer.step()
            places.append(point.detach().clone())
        path, pull = torch.stack(places).numpy(), torch.stack(pulls).numpy()
        kept = path[1:] - path[:-1] - pull  # a step is -η v = -η β v_before - η g
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
        axes.plot(*path.T, ".", color="black", markersize=7)
        if beta:
            axes.quiver(
                *path[:-1].T, *kept.T, color=COLORS["Momentum"], label="velocity kept, -ηβv", **arrows
            )
        axes.quiver(*(path[:-1] + kept).T, *pull.T, color=COLORS["Adam"], label="gradient, -ηg", **arrows)
        axes.set_title(f"Momentum, β = {beta}" if beta else "Gradient descent")
        axes.legend(loc="lower right")
    return picture
