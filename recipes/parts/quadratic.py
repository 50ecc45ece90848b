"""How fast three methods converge on a convex quadratic: theory, measurement, and their picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import torchopt_course as optim
from recipes.common.pictures import COLORS, Figure, decorate, panels


def best_settings(kappa: float) -> dict[str, tuple[float, float, float]]:
    """Learning rate, momentum, and the factor by which the distance to the minimum shrinks in a step.

    For curvatures from μ = 1 to L = κ. Gradient descent and Polyak's heavy ball (1964) with the settings that
    are the best on a quadratic; Nesterov's method (2004) with its constants for any convex function.
    """
    root = math.sqrt(kappa)
    heavy = (root - 1) / (root + 1)
    return {
        "Gradient descent": (2 / (kappa + 1), 0.0, (kappa - 1) / (kappa + 1)),
        "Momentum": (4 / (root + 1) ** 2, heavy**2, heavy),
        "Nesterov": (1 / kappa, heavy, 1 - 1 / root),
    }


def measured_factor(name: str, kappa: float, most_steps: int = 4000) -> float:
    """The same factor, measured on f(x) = (x_1² + κ x_2²) / 2."""
    lr, momentum, factor = best_settings(kappa)[name]
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    curvature = torch.tensor([1.0, kappa], dtype=torch.float64)
    optimizer = optim.SGD([x], lr=lr, momentum=momentum, nesterov=name == "Nesterov")
    # Until some e^-400 is left, far from the smallest float64. Momentum's distance is (a + b t) factor^t:
    # the ratio of two late distances is free of a and b, but for 2^(1 / half).
    half = min(most_steps // 2, math.ceil(200 / -math.log(factor)))
    distances = []
    for _ in range(2 * half):
        x.grad = curvature * x.detach()
        optimizer.step()
        distances.append(x.detach().abs().max().item())
    return float((distances[-1] / distances[half - 1]) ** (1 / half))


def steps_per_digit(factor: float) -> float:
    """Steps until a tenth of the distance is left."""
    return -math.log(10) / math.log(factor)


def speeds_at(kappas: Sequence[float]) -> list[dict[str, Any]]:
    """The factor of each method at each condition number, by theory and measured."""
    speeds = []
    for kappa in kappas:
        for name, (_, _, theory) in best_settings(kappa).items():
            measured = measured_factor(name, kappa)
            speed = {"kappa": kappa, "optimizer": name, "theory": theory, "measured": measured}
            speeds.append({**speed, "steps": steps_per_digit(measured)})
    return speeds


def draw_quadratic(speeds: Sequence[Mapping[str, Any]]) -> Figure:
    """Steps for one more decimal digit against the condition number: slope 1 and slope 1/2."""
    picture, axes = panels(9, 6)
    fine = torch.logspace(math.log10(2), math.log10(1.5 * max(p["kappa"] for p in speeds)), 200).tolist()
    for name, color, formula in (
        ("Gradient descent", COLORS["SGD"], "(κ-1) / (κ+1)"),
        ("Momentum", COLORS["Momentum"], "(√κ-1) / (√κ+1)"),
        ("Nesterov", COLORS["Nesterov"], "1 - 1/√κ"),
    ):
        theory = [steps_per_digit(best_settings(kappa)[name][-1]) for kappa in fine]
        axes.loglog(fine, theory, color=color, alpha=0.6, label=f"{name}: a step leaves {formula}")
        mine = [p for p in speeds if p["optimizer"] == name]
        axes.loglog([p["kappa"] for p in mine], [p["steps"] for p in mine], "o", color=color)
    title = "Gradient descent pays with κ, momentum with its root (lines: theory, dots: measured)"
    decorate(axes, "condition number κ = L / μ", "steps for one more digit", title)
    axes.legend()
    return picture
