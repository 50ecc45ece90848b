"""Wherever sliders and switches stand: the page walks as the package, or says why it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torchopt_course
from torchopt_course import ElementwiseOptimizer
from torchopt_course.playground import page
from torchopt_course.playground.page import OURS

from ..browser import Browser

pytest.importorskip("sympy")
STEPS = 30


class Stairs(ElementwiseOptimizer):
    """Rates that fall after some steps; options of all kinds."""

    states = ("mean",)
    optional_states = {"largest": "bounded"}

    def __init__(
        self, params: Any, lr: float = 0.1, gamma: float = 0.5, period: int = 10, shift: float = -0.1,
        weights: Any = (0.9, 0.2), bounded: bool = False, mode: str = "stairs",
    ) -> None:  # fmt: skip
        if not 0 < lr < 3 or not gamma < 0.95:
            raise ValueError(f"lr={lr}, gamma={gamma}")
        options = {"lr": lr, "gamma": gamma, "period": period, "shift": shift, "weights": weights}
        super().__init__(params, {**options, "bounded": bounded, "mode": mode})

    @staticmethod
    def coefficients(
        step: Any, first: Any, lr: Any, gamma: Any, period: Any, shift: Any, weights: Any, mode: Any
    ) -> Any:
        passed = math.floor(step / period) if period else 0
        rate = lr * gamma**passed if mode == "stairs" and gamma else lr
        return {
            "lr": rate,
            "mean_of": weights[0],
            "fresh": 1.0 if first else weights[1],
            "shift": shift or None,
        }

    @staticmethod
    def rule(p: Any, g: Any, mean: Any, largest: Any, lr: Any, mean_of: Any, fresh: Any, shift: Any) -> Any:
        import torch as xp

        mean = mean_of * mean + fresh * g
        if largest is not None:
            largest = xp.maximum(largest, xp.abs(g))
            mean = xp.clamp(mean, -1, 1) * xp.minimum(largest, 1 + 0 * largest)
        return p - lr * (mean if shift is None else mean + shift), mean, largest


class Fixed(ElementwiseOptimizer):
    """Nothing to be set."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @staticmethod
    def coefficients() -> Any:
        return {"lr": 0.01}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


CLASSES: dict[str, Callable[..., ElementwiseOptimizer]] = {
    **{name: getattr(torchopt_course, name) for name in OURS},
    "Stairs": Stairs,
    "Fixed": Fixed,
}
# Sliders anywhere, a third of them at an end.
WALKS = """
let drawn = 0;
const random = () => uniform(1000 + drawn++);
const landscape = named(LANDSCAPES, "Ravine"), parameters = [40, 0], found = [];
for (const optimizer of OPTIMIZERS) {
  for (let i = 0; i < 60; i++) {
    const options = {};
    for (const slider of optimizer.sliders) {
      options[slider.key] = valueAt(slider, Math.min(Math.max(random() * 1.5 - 0.25, 0), 1));
    }
    for (const name of Object.keys(optimizer.switches)) options[name] = random() < 0.5;
    const start = landscape.start, request = {optimizer, options, landscape, parameters, start, steps: STEPS};
    const {x, y, stopped} = walk(request);
    found.push({name: optimizer.name, options, refused: refusal(optimizer, options), x, y, stopped});
  }
}
return found;
"""


def pythons_options(flat: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in flat.items():
        name, _, i = key.partition(".")
        options[name] = (*options.get(name, ()), float(value)) if i else value
    return {name: float(v) if type(v) is int and name != "period" else v for name, v in options.items()}


def pythons_steps(make: Callable[..., Any], options: dict[str, Any], walked: list[Any]) -> list[list[float]]:
    """Where each step of the page would have led in Python. (A path of its own may part from the page's after
    a rounding: next to the minimum some of these settings jump by the sign of the slope.)"""
    point = torch.tensor(walked[0], dtype=torch.float64, requires_grad=True)
    optimizer = make([point], **options)
    optimizer.param_groups[0]["fused"] = False
    ends = []
    for place in walked[:STEPS]:
        with torch.no_grad():
            point.copy_(torch.tensor(place, dtype=torch.float64))
        point.grad = point.detach() * torch.tensor([1.0, 40.0], dtype=torch.float64)
        try:
            optimizer.step()
        except ArithmeticError:
            break
        ends.append(point.tolist())
    return ends


@pytest.mark.slow
def test_the_page_walks_as_the_package_or_says_why_not(browser: Browser) -> None:
    browser.show(page([Stairs, Fixed]))
    seen: dict[str, int] = {"walked": 0, "refused": 0, "diverged": 0, "no value": 0}
    for found in browser.run(WALKS.replace("STEPS", str(STEPS))):
        make, options = CLASSES[found["name"]], pythons_options(found["options"])
        where = (found["name"], options, found["stopped"])
        if found["refused"]:
            seen["refused"] += 1
            with pytest.raises(ValueError, match=found["refused"][:20]):
                make([torch.zeros(2, requires_grad=True)], **options)
            continue
        if options.get("centered") and options["alpha"] < 0.5:
            continue  # it divides by the difference of two numbers that are nearly equal: by a rounding error
        walked = list(zip(found["x"], found["y"], strict=True))
        ends = pythons_steps(make, options, walked)
        if "diverged" in found["stopped"]:
            seen["diverged"] += 1
            assert not all(abs(value) < 1e6 * 16 for value in ends.pop()), where
        elif found["stopped"]:
            seen["no value"] += 1
        else:
            seen["walked"] += 1
            assert len(ends) == STEPS
        for ours, (x, y) in zip(walked[1:], ends, strict=True):
            scale = max(1.0, *map(abs, ours))
            assert math.hypot(x - ours[0], y - ours[1]) <= 1e-9 * scale, where
    assert seen["walked"] > 300, seen
    assert seen["refused"] > 3, seen
    assert seen["diverged"] > 3, seen
