"""Which options of an optimizer the page offers, and from where to where."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..engines.rule.number_program import Place

Scale = Literal["log", "log or 0", "rate", "linear", "whole"]
# Options that choose an engine or turn the sign: no part of the formula.
_OF_ENGINES = {"params", "foreach", "fused", "maximize", "capturable", "differentiable"}
_RATES = re.compile("beta|alpha|momentum|rho|gamma|decay_rate|nu")


@dataclass(frozen=True)
class Slider:
    """A number that the page lets one move.

    Attributes:
        place: the option, or the place in it.
        scale: how positions are spread: logarithmic, the same with a 0 at the left end, a decay rate whose
            distance to 1 is logarithmic, linear, or whole numbers.
        low, high, value: lowest, highest and first value; for rates ``high`` is below 1.
    """

    place: Place
    scale: Scale
    low: float
    high: float
    value: float


def sliders_and_switches(
    cls: type, options: Mapping[str, Any]
) -> tuple[list[Slider], dict[str, bool], dict[str, Any]]:
    """The options of an optimizer that the page offers, numbers and truth values, and all others."""
    known = {name for c in cls.__mro__ for name in inspect.signature(c.__init__).parameters}  # type: ignore[misc]
    own = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    offered = (known if takes_any else set(own)) - _OF_ENGINES
    sliders: list[Slider] = []
    switches: dict[str, bool] = {}
    rest: dict[str, Any] = {}
    for name, value in options.items():
        items = list(enumerate(value)) if type(value) in (tuple, list) else [(None, value)]
        if name not in offered or any(type(item) not in (bool, int, float) for _, item in items):
            rest[name] = value
        elif type(value) is bool:
            switches[name] = value
        elif any(type(item) is bool for _, item in items):
            rest[name] = value
        else:
            sliders += [_slider((name, i), item) for i, item in items]
    return sliders, switches, rest


def _slider(place: Place, value: float) -> Slider:
    name = place[0]
    if name == "lr":
        return Slider(place, "log", 1e-4, 10.0, value)
    if type(value) is int and abs(value) > 1:
        return Slider(place, "whole", min(0, 10 * value), max(0, 10 * value), value)
    if name == "eps":
        return Slider(place, "log", 1e-12, 1.0, value)
    if "decay" in name and 0 <= value <= 1 and not _RATES.search(name):
        return Slider(place, "log or 0", 1e-4, 1.0, value)
    if 0 <= value < 1 and (_RATES.search(name) or value >= 0.5):
        return Slider(place, "rate", 0.0, 0.9999, value)
    if value < 0:
        return Slider(place, "linear", 2 * value, 0.0, value)
    if value <= 1 and not 0 < value < 0.1:
        return Slider(place, "linear", 0.0, 1.0, value)
    return Slider(place, "log", value / 100, value * 100, value)
