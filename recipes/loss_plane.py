"""The landscape of a real network: a plane through two of its minima. `python recipes/loss_plane.py`.

A network has thousands of weights and no picture. But three places span a plane: where a training began,
where it ended, and where another one, from other initial weights, ended. On this plane the loss can be drawn,
as Li et al. (2018, "Visualizing the loss landscape of neural nets") do between minima, and the way of the
first training with it, seen from straight above.

The network is a small one on real handwritten digits; the loss is that of all training rows.

The verdict, written before the run. The claim is borne out if on the straight line between the two minima the
loss rises above ten times that of the higher one: a convex function cannot do that.
"""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

import torchopt_course as optim
from recipes.common.data import Data, load_data
from recipes.common.loop import train
from recipes.common.model import make_model
from recipes.common.pictures import COLORS, Figure, decorate, panels, plain_log, stars
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of

CLAIM = "The loss of a real network is not convex: between two minima lies a ridge"


@dataclass(frozen=True)
class Size:
    epochs: int
    points: int
    """From one side of the plane to the other."""


SIZES = {"smoke": Size(3, 9), "gallery": Size(40, 41), "full": Size(100, 151)}


def walk(data: Data, seed: int, epochs: int) -> Tensor:
    """All weights end to end: before the first epoch and after each; (epochs + 1) x weights."""
    model = make_model("mlp", data, seed)
    optimizer = optim.Momentum(model.parameters(), lr=0.05)
    places = [parameters_to_vector(model.parameters()).detach()]
    for _ in train(model, optimizer, data, epochs=epochs, batch_size=32, seed=seed):
        places.append(parameters_to_vector(model.parameters()).detach())
    return torch.stack(places)


@torch.no_grad()
def losses_at(model: nn.Module, data: Data, places: Tensor) -> Tensor:
    """Mean loss of the training rows with each of many weights; places x weights."""
    losses = []
    for place in places:
        nn.utils.vector_to_parameters(place, model.parameters())
        losses.append(F.cross_entropy(model(data.train_inputs), data.train_targets))
    return torch.stack(losses)


@dataclass(frozen=True)
class Plane:
    """The plane through three places, with a grid of coordinates: 0, 0 is the first minimum."""

    origin: Tensor
    units: Tensor
    """2 x weights, of length one: to the second minimum, and to the side where the first training began."""

    @classmethod
    def through(cls, first: Tensor, second: Tensor, third: Tensor) -> Plane:
        along = F.normalize(second - first, dim=0)
        across = F.normalize(third - first - (third - first) @ along * along, dim=0)
        return cls(first, torch.stack([along, across]))

    def seen(self, places: Tensor) -> Tensor:
        """Coordinates of the nearest points of the plane; places x 2."""
        return (places - self.origin) @ self.units.T

    def at(self, coordinates: Tensor) -> Tensor:
        """The weights at coordinates; ... x 2 to ... x weights."""
        return self.origin + coordinates @ self.units


def draw_plane(x: Tensor, y: Tensor, losses: Tensor, path: Tensor, minima: Tensor) -> Figure:
    """Height lines at equal ratios, the way of the first training, a star at each minimum."""
    from matplotlib.colors import LogNorm

    picture, axes = panels(9, 4.2)
    levels = torch.logspace(float(losses.min().log10()), float(losses.max().log10()), 25).tolist()
    ground = axes.contourf(x, y, losses, levels, cmap="Greys_r", norm=LogNorm())
    axes.contour(x, y, losses, levels, colors="black", linewidths=0.3)
    words = "the first training, an epoch a dot"
    axes.plot(*path.T, "o-", color=COLORS["Momentum"], markersize=3, label=words)
    stars(axes, minima, size=20, label="where two trainings ended")
    bar = picture.colorbar(ground, ax=axes, label="training loss")
    plain_log(bar.ax.yaxis)
    axes.set_aspect("equal")
    title = "A plane through two minima of a real network"
    decorate(axes, "distance towards the second minimum", "distance across", title)
    axes.legend(loc="upper right")
    return picture


def draw_line(losses: Tensor) -> Figure:
    """The loss on the straight way from one minimum to the other."""
    picture, axes = panels(8, 4.2)
    axes.semilogy(losses, color=COLORS["Momentum"], linewidth=2)
    stars(axes, [(0, losses[0]), (len(losses) - 1, losses[-1])])
    words = "percent of the way from the first minimum to the second"
    decorate(axes, words, "training loss", "Between two minima lies a ridge")
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Train twice, look at the plane, judge."""
    data = load_data("digits", "test")
    model = make_model("mlp", data, seed)
    first, second = (walk(data, seed + n, size.epochs) for n in (0, 1))
    plane = Plane.through(first[-1], second[-1], first[0])
    corners = plane.seen(torch.stack([first[0], first[-1], second[-1]]))
    margin = 0.25 * (corners.amax(dim=0) - corners.amin(dim=0))
    (left, bottom), (right, top) = corners.amin(dim=0) - margin, corners.amax(dim=0) + margin
    x, y = torch.linspace(left, right, size.points), torch.linspace(bottom, top, size.points)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    ground = torch.stack([losses_at(model, data, plane.at(row)) for row in grid])
    line = losses_at(model, data, torch.lerp(first[-1], second[-1], torch.linspace(0, 1, 101)[:, None]))

    words = "Loss of all training rows; the step is the percent of the way."
    report.curve("loss/line_between_minima", words, line.tolist(), range(101))
    report.picture("plane", draw_plane(x, y, ground, plane.seen(first), corners[1:]))
    report.picture("line", draw_line(line))
    one, other, highest = float(line[0]), float(line[-1]), float(line.max())
    rows = [
        {"place": "first minimum", "loss": one},
        {"place": "second minimum", "loss": other},
        {"place": "highest point on the line between", "loss": highest},
    ]
    verdict = Verdict(
        CLAIM,
        highest > 10 * max(one, other),
        f"two trainings ended {(second[-1] - first[-1]).norm():.1f} apart with losses of {one:.2g} and "
        f"{other:.2g}, and on the straight line between them the loss rises to {highest:.2g}",
    )
    report.finish(table_of(rows, {"": "{place}", "training loss": "{loss:.3g}"}), rows, verdict)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
