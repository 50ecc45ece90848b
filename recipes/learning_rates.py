"""Too small, good, too large: what the learning rate does. `python recipes/learning_rates.py`.

    θ ← θ - η ∇f(θ)

On the parabola f(x) = L x² / 2 a step multiplies x by 1 - η L: gradient descent converges for η < 2 / L and
no other rate, in one step at η = 1 / L. A network has no such number, but the same three regions. It is a
small one on real handwritten digits, trained with SGD from several seeds at each rate of a grid.

The verdict, written before the run. The claim is borne out if

1. on the parabola exactly the rates below 2 / L converge, of all that are tried,
2. the network's best rate, by the training loss at the end, lies inside of the grid, and
3. with a hundredth of it the loss is at least ten times the best, and with the grid's largest rate it is
   above where it began (or no number any more).
"""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch

import torchopt_course as optim
from recipes.common.data import load_data
from recipes.common.loop import evaluate, train
from recipes.common.model import make_model
from recipes.common.pictures import Figure, decorate, panels
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.schedule_runs import Run, recorded

CLAIM = "A learning rate that is too small crawls, one that is too large diverges; a good one lies between"
CURVATURE = 4.0
SHARES = {"too small": 0.1, "good": 1.0, "overshoots, arrives": 1.9, "too large": 2.1}  # η L


@dataclass(frozen=True)
class Size:
    rates: tuple[float, ...]
    seeds: int
    epochs: int


GRID = tuple(10 ** (half / 2) for half in range(-8, 5))
SIZES = {
    "smoke": Size(GRID[::4], seeds=1, epochs=2),
    "gallery": Size(GRID, seeds=3, epochs=20),
    "full": Size(tuple(10 ** (quarter / 4) for quarter in range(-16, 9)), seeds=10, epochs=60),
}


def descend(share: float, steps: int = 12) -> list[float]:
    """x after every step of gradient descent on L x² / 2, with η = share / L."""
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = optim.SGD([x], lr=share / CURVATURE)
    places = [x.item()]
    for _ in range(steps):
        optimizer.zero_grad()
        (CURVATURE * x**2 / 2).sum().backward()
        optimizer.step()
        places.append(x.item())
    return places


@cache
def two_by_l_is_the_boundary() -> bool:
    """Do the rates below 2 / L converge, and no others? (At 2 / L itself x only jumps to and fro.)"""
    tried = [step / 20 for step in range(1, 60) if step != 40]
    return all((abs(descend(share, steps=200)[-1]) < 1e-3) == (share < 2) for share in tried)


def train_once(lr: float, seed: int, epochs: int) -> Run:
    """SGD on the digits at one constant rate."""
    data = load_data("digits", "validation")  # the test rows are not needed
    model = make_model("mlp", data, seed)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    return recorded(train(model, optimizer, data, epochs=epochs, batch_size=32, seed=seed), epochs)


def first_loss(seed: int) -> float:
    """Mean loss of the training rows before the first step."""
    data = load_data("digits", "validation")
    return evaluate(make_model("mlp", data, seed), data.train_inputs, data.train_targets)[0]


def three_rates(ends: dict[float, float]) -> tuple[float, float, float]:
    """Of all that were tried: a hundredth of the best rate, the best, and the largest."""
    best = min(ends, key=ends.__getitem__)
    return min(ends, key=lambda lr: abs(math.log(100 * lr / best))), best, max(ends)


def judge(ends: dict[float, float], start: float) -> Verdict:
    """The criterion of the docstring above; `ends` are the last losses by rate, `start` the first."""
    boundary = two_by_l_is_the_boundary()
    small, best, large = three_rates(ends)
    inside = min(ends) < best < large
    return Verdict(
        CLAIM,
        boundary and inside and ends[small] >= 10 * ends[best] and not ends[large] <= start,
        f"on the parabola {'exactly the' if boundary else 'not just the'} rates below 2 / L converged; the "
        f"network came from a loss of {start:.2g} to {ends[best]:.2g} with the best rate, {best:.2g}, to "
        f"{ends[small]:.2g} with {small:.2g} and to {ends[large]:.2g} with {large:.3g}",
    )


def draw_parabola() -> Figure:
    """Four rates on one parabola."""
    picture, four = panels(12, 3.8, columns=4, sharey=True)
    x = torch.linspace(-2.2, 2.2, 200)
    for axes, (name, share) in zip(four, SHARES.items(), strict=True):
        axes.plot(x, CURVATURE * x**2 / 2, color="0.7", linewidth=2)
        places = torch.tensor(descend(share))
        axes.plot(places, CURVATURE * places**2 / 2, "o-", color="#0072B2", markersize=5)
        axes.set(xlim=(-2.2, 2.2), ylim=(-0.5, 9))
        decorate(axes, "x", "L x² / 2", f"{name}\nη = {share:g} / L")
        axes.label_outer()
    return picture


def draw_network(first: dict[float, list[float]], ends: dict[float, list[float]]) -> Figure:
    """The first seed's loss by epoch at three rates, and the loss at the end at all of them."""
    picture, (left, right) = panels(11, 4.4, columns=2)
    medians = {lr: median(end) for lr, end in ends.items()}
    looks = ("too small", "#E69F00"), ("good", "#009E73"), ("too large", "#D55E00")
    for lr, (name, color) in zip(three_rates(medians), looks, strict=True):
        left.semilogy(first[lr], color=color, linewidth=2, label=f"{name}: {lr:.3g}")
    right.loglog(medians.keys(), medians.values(), color="#0072B2")
    for lr, end in ends.items():
        right.loglog([lr] * len(end), end, "o", color="#0072B2", alpha=0.5)
    left.locator_params(axis="x", integer=True)
    decorate(left, "epoch", "training loss", "Three learning rates")
    decorate(right, "learning rate", "training loss at the end", "All of them; a dot for each seed")
    left.legend()
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Descend, train, draw, judge."""
    jobs = {lr: [(lr, seed + n, size.epochs) for n in range(size.seeds)] for lr in size.rates}
    runs = report.train_all(train_once, jobs, "rates")
    starts = [first_loss(seed + n) for n in range(size.seeds)]
    first = {lr: [starts[0], *some[0].losses] for lr, some in runs.items()}
    ends = {lr: [run.losses[-1] for run in some] for lr, some in runs.items()}
    for lr, losses in first.items():
        words = "After the epoch; the first seed."
        report.curve(f"training_loss/{lr:.3g}", words, losses, range(size.epochs + 1))
    report.picture("parabola", draw_parabola())
    report.picture("network", draw_network(first, ends))
    medians = {lr: median(end) for lr, end in ends.items()}
    rows = [{"lr": lr, "loss": loss} for lr, loss in medians.items()]
    heading = f"training loss after\n{size.epochs} epochs (median)"
    text = table_of(rows, {"learning rate": "{lr:.3g}", heading: "{loss:.3g}"}, missing="inf")
    report.finish(text, rows, judge(medians, median(starts)))


if __name__ == "__main__":
    main(__doc__, SIZES, run)
