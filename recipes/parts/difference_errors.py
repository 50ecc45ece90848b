"""The error of finite differences against the step, beside the theory, and its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recipes.common.pictures import Figure, decorate, panels
from recipes.parts.statistics import loglog_slope

Y = 3.0


@dataclass(frozen=True)
class Errors:
    """Root mean square over the points, for each h; the theory's two errors, and the slopes where one rules.

    One point alone would jump up and down: its round-off is sometimes zero by luck.
    """

    h: Tensor
    measured: dict[str, Tensor]
    """Of forward and of central differences; and so the truncation of theory."""
    truncation: dict[str, Tensor]
    round_off: Tensor
    slopes: dict[str, float]
    """"forward truncation" and so on: of log error against log h."""


def errors_against_h(program: Callable[[Any, float], Any], points: int) -> Errors:
    """Of dz/dx of z = x y + sin x, for many x in [0.5, 2.5] and y = 3.

    By Taylor's theorem forward differences cut off h/2 z″ = -h/2 sin x, central ones h²/6 z‴ = -h²/6 cos x.
    Both round z to half an ε, and x + h as well, which counts dz/dx times as much; then they divide by h.
    """
    h = torch.tensor([10 ** (-k / 2) for k in range(31)], dtype=torch.float64)
    x = torch.linspace(0.5, 2.5, points, dtype=torch.float64)[:, None]
    slope, value, ahead, behind = Y + torch.cos(x), program(x, Y), program(x + h, Y), program(x - h, Y)
    measured = {
        "forward": rms((ahead - value) / h - slope),
        "central": rms((ahead - behind) / (2 * h) - slope),
    }
    truncation = {"forward": h / 2 * rms(torch.sin(x)), "central": h**2 / 6 * rms(torch.cos(x))}
    round_off = torch.finfo(h.dtype).eps / 2 * rms(torch.hypot(value, x * slope)) / h
    slopes = {}
    for way, theory in truncation.items():
        # Where one error is at least thirty times the other, and h is small enough for Taylor's first term.
        for name, rules in {
            "truncation": (theory > 30 * round_off) & (h <= 0.1),
            "round-off": round_off > 30 * theory,
        }.items():
            slopes[f"{way} {name}"] = loglog_slope(h[rules].tolist(), measured[way][rules].tolist())
    return Errors(h, measured, truncation, round_off, slopes)


def rms(values: Tensor) -> Tensor:
    """Root mean square over the points."""
    return values.square().mean(dim=0).sqrt()


def draw_errors(errors: Errors) -> Figure:
    """Both finite differences, and the theory's lines beneath: truncation rises with h, round-off falls."""
    picture, axes = panels(9, 5)
    for way, formula, color in ("forward", "h/2 |z″|", "#009E73"), ("central", "h²/6 |z‴|", "#CC79A7"):
        axes.loglog(errors.h, errors.truncation[way], "--", color=color, label=f"truncation, {formula}")
        dots = f"{way} differences, measured"
        axes.loglog(errors.h, errors.measured[way], "o-", color=color, markersize=4, label=dots)
    axes.loglog(errors.h, errors.round_off, ":", color="0.4", label="round-off, about ε/2 |z| / h")
    axes.set_ylim(1e-13, 10)
    decorate(axes, "step h", "error of dz/dx, root mean square", "Finite differences of z = x y + sin x")
    axes.legend(loc="upper center")
    return picture
