"""Six landscapes and how each optimizer walks through them: `python recipes/landscapes.py`.

Every optimizer may try the same learning rates and is shown with its best: the one that needs the fewest
steps until a thousandth of the height is left, without leaving the picture on the way. That is the best case
for each of them, chosen on the very walk that is shown; how hard the right rate is to find is another
question (recipes/optimizers.py). One landscape asks it nevertheless: the ravine turned by 30 degrees, walked
with the straight one's rates.

Then a convex quadratic: how fast gradient descent, momentum and Nesterov converge on it, against theory.

The claim is borne out if momentum needs fewer steps than gradient descent in at least four of the six
landscapes, and if all measured speeds on the quadratic are within 2 % of the theory's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torchopt_course as optim
from recipes.common.command_line import progress_bar
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table, table_of
from recipes.parts import landscape_pictures as pictures
from recipes.parts.ground import LANDSCAPES, Landscape, Walk, turned
from recipes.parts.quadratic import draw_quadratic, speeds_at


@dataclass(frozen=True)
class Size:
    steps: int
    """Steps of every walk."""
    rates: int
    """Learning rates to choose from, on a logarithmic grid from 0.0001 to 10."""
    kappas: tuple[int, ...]
    """Condition numbers of the quadratic."""
    frames: int
    """Pictures in the animation."""


SIZES = {
    "smoke": Size(steps=100, rates=6, kappas=(10, 100), frames=4),
    "gallery": Size(steps=300, rates=16, kappas=(3, 10, 30, 100, 300, 1000), frames=40),
    "full": Size(steps=2000, rates=31, kappas=(3, 10, 30, 100, 300, 1000, 3000, 10_000), frames=80),
}
TARGET = 1e-3

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Gradient descent": lambda groups: optim.SGD(groups),
    "Momentum": lambda groups: optim.Momentum(groups, momentum=0.9),
    "Nesterov": lambda groups: optim.Momentum(groups, momentum=0.9, nesterov=True),
    "Adagrad": lambda groups: optim.Adagrad(groups),
    "RMSprop": lambda groups: optim.RMSprop(groups),
    "Adam": lambda groups: optim.Adam(groups),
}


def walk(landscape: Landscape, optimizer_name: str, lrs: Sequence[float], steps: int) -> list[Walk]:
    """All learning rates at once, one parameter group for each."""
    points = [torch.tensor(landscape.start, dtype=torch.float64, requires_grad=True) for _ in lrs]
    groups = [{"params": [point], "lr": lr} for point, lr in zip(points, lrs, strict=True)]
    optimizer = OPTIMIZERS[optimizer_name](groups)
    positions = [torch.stack(points).detach()]
    for _ in range(steps):
        optimizer.zero_grad()
        # The walks do not touch: the gradient of the sum holds the gradient of each.
        landscape.height(*torch.stack(points).T).sum().backward()
        optimizer.step()
        positions.append(torch.stack(points).detach())
    paths = torch.stack(positions, dim=1)
    heights = landscape.height(paths[..., 0], paths[..., 1]) - landscape.lowest
    left, right, bottom, top = landscape.view
    x, y = paths.unbind(dim=-1)
    inside = ((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).all(dim=1)
    return [
        Walk(lr, path, height, steps_until(height <= TARGET * height[0]) if stayed else math.inf, stayed)
        for lr, path, height, stayed in zip(lrs, paths, heights, inside.tolist(), strict=True)
    ]


def steps_until(reached: Tensor) -> float:
    """The first step from which on the target stays reached: to fly past the minimum does not count."""
    missed = (~reached).nonzero()
    first = int(missed[-1]) + 1 if len(missed) else 0
    return first if first < len(reached) else math.inf


def quality(walk: Walk) -> tuple[float, bool, float]:
    """Fewest steps first; among those that miss the target, those that stay in sight, then the lowest end."""
    end = walk.heights[-1].item()
    return walk.steps_to_target, not walk.inside, end if math.isfinite(end) else math.inf  # NaN is the worst


def symptoms(walk: Walk) -> tuple[float, float]:
    """Share of steps that turn by more than 90°, and the longest step over the shortest, up to the target."""
    last = min(walk.steps_to_target, len(walk.path) - 1)
    moves = walk.path[: int(last) + 1].diff(dim=0)
    lengths = moves.norm(dim=1)
    back = (moves[1:] * moves[:-1]).sum(dim=1) < 0
    return back.double().mean().item(), (lengths.max() / lengths.min()).item()


def minima_found(attempts: Sequence[Walk], landscape: Landscape) -> int:
    """At how many of the minima some learning rate ended."""
    ends = torch.stack([attempt.path[-1] for attempt in attempts])
    minima = torch.tensor(landscape.minima, dtype=torch.float64)
    return int((torch.cdist(minima, ends.nan_to_num(math.inf)) < 0.1).any(dim=1).sum())


def row_of(name: str, optimizer_name: str, walk: Walk) -> dict[str, Any]:
    """The numbers behind the table; a target that was missed is infinite."""
    turned_back, ratio = symptoms(walk)
    return {
        "landscape": name,
        "optimizer": optimizer_name,
        "lr": walk.lr,
        "steps_to_target": walk.steps_to_target,
        "height_left": walk.heights[-1].item(),
        "x": walk.path[-1].tolist(),
        "turned_back": turned_back,
        "longest_over_shortest_step": ratio,
    }


SUFFERED = {
    "": "{landscape}",
    "steps that\nturn back": "{turned_back:.0%}",
    "longest step\nover shortest": "{longest_over_shortest_step:,.0f}",
    "minima found\nby all rates": "{found} of {of}",
    "failure": "{failure}",
}
SPEEDS = {
    "": "{optimizer}",
    "condition\nnumber": "{kappa}",
    "theory": "{theory:.5f}",
    "measured": "{measured:.5f}",
    "steps for\none digit": "{steps:.0f}",
}


def tables(
    rows: Sequence[dict[str, Any]], found: Mapping[str, int], speeds: Sequence[Mapping[str, Any]]
) -> str:
    """Steps to the target; what gradient descent suffered; the quadratic."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        steps = f"{row['steps_to_target']:.0f}".replace("inf", "-")
        cells.setdefault(row["landscape"], [row["landscape"]]).append(f"{steps} ({row['lr']:.2g})")
    suffered = [
        {**row, "found": found[name], "of": len(ground.minima), "failure": ground.failure.replace("\n", " ")}
        for name, ground in LANDSCAPES.items()
        for row in rows
        if (row["landscape"], row["optimizer"]) == (name, "Gradient descent")
    ]
    return "\n\n".join([
        "Steps to a thousandth of the height at the start (best learning rate); - is never:",
        table(("", *OPTIMIZERS), cells.values()),
        "What gradient descent suffers on the way:",
        table_of(suffered, SUFFERED, missing="inf"),
        "Distance kept in one step of the convex quadratic:",
        table_of(speeds, SPEEDS),
    ])  # fmt: skip


def judge(
    walks: Mapping[str, Mapping[str, Walk]], speeds: Sequence[Mapping[str, Any]], steps: int
) -> Verdict:
    """The criterion that the help text names."""
    plain = {name: walks[name]["Gradient descent"].steps_to_target for name in LANDSCAPES}
    faster = {
        other: sum(walks[name][other].steps_to_target < plain[name] for name in LANDSCAPES)
        for other in OPTIMIZERS
        if other != "Gradient descent"
    }
    # As speeds, -log, because 0.998 and 0.996 are close as numbers and far apart in steps.
    error = max(abs(math.log(p["measured"]) / math.log(p["theory"]) - 1) for p in speeds)
    others = ", ".join(f"{name} in {count}" for name, count in faster.items() if name != "Momentum")
    missed = [name for name, count in plain.items() if count == math.inf]
    return Verdict(
        "Plain gradient descent zigzags, stalls and crawls; momentum gathers speed, "
        "and needs the root of the condition number",
        faster["Momentum"] >= 4 and error < 0.02,
        f"each with its best learning rate, momentum took fewer steps than gradient descent in "
        f"{faster['Momentum']} of {len(LANDSCAPES)} landscapes ({others}); targets that "
        f"gradient descent missed in {steps} steps: {', '.join(missed) or 'none'}; measured speeds on the "
        f"quadratic are within {error:.1%} of theory",
    )


def run(report: Report, size: Size) -> None:
    """Walk, draw, judge."""
    lrs = torch.logspace(-4, 1, size.rates, dtype=torch.float64).tolist()
    grounds = {**LANDSCAPES, "turned ravine": turned(LANDSCAPES["ravine"], 30, view=(-10, 4, -7, 4))}
    walks: dict[str, dict[str, Walk]] = {name: {} for name in grounds}
    found: dict[str, int] = {}
    with progress_bar(len(grounds) * len(OPTIMIZERS), "walk") as bar:
        for (name, landscape), optimizer_name in product(grounds.items(), OPTIMIZERS):
            # The turned ravine is no new chance to choose: it is walked with the straight one's rate.
            rates = lrs if name in LANDSCAPES else [walks["ravine"][optimizer_name].lr]
            attempts = walk(landscape, optimizer_name, rates, size.steps)
            walks[name][optimizer_name] = best = min(attempts, key=quality)
            if optimizer_name == "Gradient descent":
                found[name] = minima_found(attempts, landscape)
            words = "Height above the lowest point, with the best learning rate."
            report.curve(f"{name}/{optimizer_name}", words, best.heights.tolist(), range(size.steps + 1))
            bar.update()
    speeds = speeds_at(size.kappas)

    pictures.animate(walks, report.folder / "paths.gif", size.frames)
    pictures.show_gif(report.tensorboard, "landscapes/animation", report.folder / "paths.gif")
    report.pictures.append("paths.gif")
    report.picture("paths", pictures.draw_paths(walks)[0])
    report.picture("velocity", pictures.draw_velocity(LANDSCAPES["ravine"]))
    report.picture("turned", pictures.draw_turned(grounds, walks))
    report.picture("quadratic", draw_quadratic(speeds))
    rows = [row_of(name, other, way) for name, ways in walks.items() for other, way in ways.items()]
    verdict = judge(walks, speeds, size.steps)
    report.finish(tables(rows, found, speeds), rows, verdict, quadratic=speeds, minima_found=found)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
