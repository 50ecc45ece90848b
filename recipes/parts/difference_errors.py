"""The error of finite differences against the step, beside the theory, and its picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from recipes.common.pictures import Figure, decorate, figure
from recipes.parts.statistics import loglog_slope
from torchopt_course.autograd import numerical

Y = 3.0


@dataclass(frozen=True)
class Errors:
    """Root mean square over the points, for each h; the theory's two errors, and the slopes where one rules.

    One point alone would jump up and down: its round-off is sometimes zero by luck.
    """

    h: list[float]
    measured: dict[str, list[float]]
    """Of forward and of central differences; and so the truncation of theory."""
    truncation: dict[str, list[float]]
    round_off: list[float]
    slopes: dict[str, float]
    """"forward truncation" and so on: of log error against log h."""


def errors_against_h(program: Callable[[Any, float], Any], points: int) -> Errors:
    """Of dz/dx of z = x y + sin x, for many x in [0.5, 2.5] and y = 3.

    By Taylor's theorem forward differences cut off h/2 z″ = -h/2 sin x, central ones h²/6 z‴ = -h²/6 cos x.
    Both round z to half an ε, and x + h as well, which counts dz/dx times as much; then they divide by h.
    """
    xs = torch.linspace(0.5, 2.5, points, dtype=torch.float64)
    each = [
        numerical.error_against_step(lambda x: program(x, Y), float(x), float(Y + torch.cos(x))) for x in xs
    ]
    h = each[0].steps
    slope, value = Y + torch.cos(xs), program(xs, Y)
    rounded = torch.finfo(xs.dtype).eps / 2 * rms(value.square() + (xs * slope).square(), root=True)
    truncation = {
        "forward": [step / 2 * rms(torch.sin(xs)) for step in h],
        "central": [step**2 / 6 * rms(torch.cos(xs)) for step in h],
    }
    round_off = [rounded / step for step in h]
    measured = {
        "forward": [rms(errors) for errors in zip(*(e.forward for e in each), strict=True)],
        "central": [rms(errors) for errors in zip(*(e.central for e in each), strict=True)],
    }
    slopes = {}
    for way, errors in measured.items():
        # Where one error is at least thirty times the other, and h is small enough for Taylor's first term.
        pairs = list(zip(truncation[way], round_off, h, strict=True))
        cut = [i for i, (t, r, step) in enumerate(pairs) if t > 30 * r and step <= 0.1]
        noise = [i for i, (t, r, _) in enumerate(pairs) if r > 30 * t]
        slopes[f"{way} truncation"] = loglog_slope([h[i] for i in cut], [errors[i] for i in cut])
        slopes[f"{way} round-off"] = loglog_slope([h[i] for i in noise], [errors[i] for i in noise])
    return Errors(h, measured, truncation, round_off, slopes)


def rms(values: Any, root: bool = False) -> float:
    """Root mean square; with `root` the values are squares already."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return math.sqrt((values if root else values.square()).mean())


def draw_errors(errors: Errors) -> Figure:
    """Both finite differences, and the theory's lines beneath: truncation rises with h, round-off falls."""
    picture = figure(9, 5)
    axes = picture.subplots()
    formulas = {"forward": "h/2 |z″|", "central": "h²/6 |z‴|"}
    looks = {"forward": ("#009E73", "o-"), "central": ("#CC79A7", "s-")}
    for way, (color, look) in looks.items():
        theory, dots = f"truncation, {formulas[way]}", f"{way} differences, measured"
        axes.loglog(errors.h, errors.truncation[way], "--", color=color, label=theory)
        axes.loglog(
            errors.h, errors.measured[way], look, color=color, markersize=4, linewidth=1.2, label=dots
        )
    axes.loglog(errors.h, errors.round_off, color="0.4", linestyle=":", label="round-off, about ε/2 |z| / h")
    axes.set_ylim(1e-13, 10)
    decorate(axes, "step h", "error of dz/dx, root mean square", "Finite differences of z = x y + sin x")
    axes.legend(fontsize=9, loc="upper center")
    return picture
