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
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch

from recipes.common.command_line import progress_bar
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table
from recipes.parts import landscape_pictures as pictures
from recipes.parts.ground import LANDSCAPES, OPTIMIZERS, TURNED, Walk, quality, walk
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


def judge(walks: Mapping[str, Mapping[str, Walk]], speeds: Sequence[Mapping[str, Any]]) -> Verdict:
    """The criterion that the help text names."""
    faster = sum(
        walks[name]["Momentum"].steps_to_target < walks[name]["Gradient descent"].steps_to_target
        for name in LANDSCAPES
    )
    # As speeds, -log, because 0.998 and 0.996 are close as numbers and far apart in steps.
    error = max(abs(math.log(p["measured"]) / math.log(p["theory"]) - 1) for p in speeds)
    return Verdict(
        "Plain gradient descent zigzags, stalls and crawls; momentum gathers speed, "
        "and needs the root of the condition number",
        faster >= 4 and error < 0.02,
        f"each with its best learning rate, momentum took fewer steps than gradient descent in {faster} of "
        f"{len(LANDSCAPES)} landscapes; measured speeds on the quadratic are within {error:.1%} of theory",
    )


def run(report: Report, size: Size) -> None:
    """Walk, draw, judge."""
    lrs = torch.logspace(-4, 1, size.rates, dtype=torch.float64).tolist()
    grounds = {**LANDSCAPES, TURNED.name: TURNED}
    walks: dict[str, dict[str, Walk]] = {name: {} for name in grounds}
    rows: list[dict[str, Any]] = []
    with progress_bar(len(grounds) * len(OPTIMIZERS), "walk") as bar:
        for (name, landscape), other in product(grounds.items(), OPTIMIZERS):
            # The turned ravine is no new chance to choose: it is walked with the straight one's rate.
            rates = lrs if name in LANDSCAPES else [walks["Ravine"][other].lr]
            attempts = walk(landscape, OPTIMIZERS[other], rates, size.steps)
            walks[name][other] = best = min(attempts, key=quality)
            words = "Height above the lowest point, with the best learning rate."
            report.curve(f"{name}/{other}", words, best.heights.tolist(), range(size.steps + 1))
            numbers = {"steps_to_target": best.steps_to_target, "height_left": best.heights[-1].item()}
            rows.append({"landscape": name, "optimizer": other, "lr": best.lr, **numbers})
            bar.update()
    speeds = speeds_at(size.kappas)

    report.pictures.append("paths.gif")
    paths, moving = pictures.draw_paths(LANDSCAPES, walks, rows=2)
    report.picture("paths", paths)
    pictures.animate(paths, moving, report.path / "paths.gif", size.frames)
    ravines = {name: grounds[name] for name in ("Ravine", TURNED.name)}
    report.picture("turned", pictures.draw_paths(ravines, walks, rows=1)[0])
    report.picture("quadratic", draw_quadratic(speeds))
    steps = [
        [name, *(f"{way.steps_to_target:.0f} ({way.lr:.2g})".replace("inf", "-") for way in ways.values())]
        for name, ways in walks.items()
    ]
    head = "Steps to a thousandth of the height at the start (best learning rate); - is never:"
    text = f"{head}\n\n{table(('', *OPTIMIZERS), steps)}"
    report.finish(text, rows, judge(walks, speeds), quadratic=speeds)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
