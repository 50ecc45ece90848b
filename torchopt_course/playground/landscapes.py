"""Functions of two numbers to walk on. Their derivatives come from the symbolic engine of the autograd."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Landscape:
    """A function of two numbers and of parameters that the page lets one move.

    Attributes:
        name: as it is called on the page.
        height: ``height(x, y, *parameters)``, of torch.
        start: where a walk starts.
        view: left, right, bottom, top of the picture.
        minima: where it is lowest, all of them.
        lesson: what it teaches, in a sentence.
        lowest: the height there.
        parameters: lowest, highest and first value of each, by name.
    """

    name: str
    height: Callable[..., Any]
    start: tuple[float, float]
    view: tuple[float, float, float, float]
    minima: Sequence[tuple[float, float]]
    lesson: str
    lowest: float = 0.0
    parameters: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


def _ravine(x: Any, y: Any, condition: Any, turn: Any) -> Any:
    cos, sin = torch.cos(turn * torch.pi / 180), torch.sin(turn * torch.pi / 180)
    along, across = cos * x + sin * y, cos * y - sin * x
    return (along**2 + condition * across**2) / 2


LANDSCAPES = (
    Landscape(
        "Ravine", _ravine, (-9.0, 2.0), (-11, 5, -5.5, 4.5), [(0, 0)],
        "The steep walls forbid the rate that the flat floor needs. Turn it: plain gradient descent does not "
        "notice, methods with a rate for each axis do.",
        parameters={"condition": (1.0, 200.0, 40.0), "turn": (0.0, 90.0, 0.0)},
    ),
    Landscape(
        "Saddle", lambda x, y: 5 * x**2 + y**4 / 4 - y**2 / 2,
        (-1.0, 1e-3), (-1.6, 1.6, -1.3, 1.6), [(0, -1), (0, 1)],
        "Beside the saddle there is hardly a slope to leave it by: gradient descent waits there.",
        lowest=-0.25,
    ),
    Landscape(
        "Plateau", lambda x, y: 1 - torch.exp(-(x**2 + 2 * y**2) / 2),
        (-2.6, 1.1), (-4, 2.4, -2, 2), [(0, 0)],
        "No slope, no step. Methods that divide by the size of the gradient cross it.",
    ),
    Landscape(
        "Bumps", lambda x, y: (x**2 + y**2) / 20 + (2 - torch.cos(2 * x) - torch.cos(2 * y)) / 4,
        (-6.0, 4.2), (-8, 6, -4, 6), [(0, 0)],
        "A local minimum at each bump: a velocity carries over the small ones.",
    ),
    Landscape(
        "Rosenbrock", lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        (-1.2, 1.0), (-2, 1.8, -0.6, 2.0), [(1, 1)],
        "The narrow valley bends, and its floor is almost flat.",
    ),
    Landscape(
        "Beale",
        lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
        (1.0, 1.5), (-0.5, 4.3, -1.5, 2), [(3, 0.5)],
        "A rate that survives the wall is too small behind it.",
    ),
    Landscape(
        "Himmelblau", lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
        (-0.2, -1.2), (-6.5, 6.5, -5, 5),
        [(3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)],
        "Four minima, and which one is found depends on the start, the rate and the method.",
    ),
)  # fmt: skip


def landscape_text(landscape: Landscape) -> str:
    """A landscape as an object of JavaScript, with its height and its slope.

    Raises:
        ModuleNotFoundError: sympy is missing (``pip install sympy``).
    """
    from ..autograd.symbolic import formula

    found = formula(landscape.height)  # it says what is to be installed, if sympy is not there

    from sympy.codegen.rewriting import create_expand_pow_optimization  # type: ignore[import-untyped]
    from sympy.printing.jscode import JavascriptCodePrinter  # type: ignore[import-untyped]

    products = create_expand_pow_optimization(4)  # x * x rather than a power

    class Printer(JavascriptCodePrinter):  # type: ignore[misc]
        def _print_Float(self, number: Any) -> str:  # all digits: sympy's own prints 15
            return repr(float(number))

    def text(expression: Any) -> str:
        return str(Printer().doprint(products(expression)))

    arguments = ", ".join(map(str, found.symbols))
    slope = ", ".join(text(found.derivatives[name]) for name in ("x", "y"))
    facts = {
        "name": landscape.name,
        "lesson": landscape.lesson,
        "start": landscape.start,
        "view": landscape.view,
        "minima": landscape.minima,
        "lowest": landscape.lowest,
        "parameters": [
            {"name": name, "low": low, "high": high, "value": value}
            for name, (low, high, value) in landscape.parameters.items()
        ],
    }
    return (
        f"{{...{json.dumps(facts)},\n"
        f" height: ({arguments}) => {text(found.expression)},\n"
        f" slope: ({arguments}) => [{slope}]}}"
    )
