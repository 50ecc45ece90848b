"""The page as one text: template, style, scripts, and what was read of landscapes and optimizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torchopt_course

from .landscapes import LANDSCAPES, landscape_text
from .optimizers import Optimizer

OURS = ("SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW")
# In this order: each uses what stands before it.
_SCRIPTS = (
    "numbers.js",
    "walk.js",
    "scales.js",
    "ground.js",
    "paths.js",
    "chart.js",
    "cards.js",
    "address.js",
    "input.js",
    "main.js",
)


def page(classes: Sequence[Any] = ()) -> str:
    """The playground as HTML.

    Args:
        classes: optimizers of yours, subclasses of :class:`~torchopt_course.ElementwiseOptimizer` whose
            options have defaults. Beside gradient descent the first three of them walk when the page opens;
            ours are always there to choose.

    Raises:
        PlaygroundError: one of them cannot be on the page: its rule is not elementwise, uses a function that
            has no JavaScript, or its coefficients cannot be read; the message says which and why.
        ModuleNotFoundError: sympy is missing (``pip install sympy``).
    """
    ours = [getattr(torchopt_course, name) for name in OURS]
    optimizers = [Optimizer(cls) for cls in dict.fromkeys([*ours, *classes])]
    for i, optimizer in enumerate(optimizers):
        if optimizer.name in {before.name for before in optimizers[:i]}:
            optimizer.name += f" of {optimizer.cls.__module__}"
    names = {optimizer.cls: optimizer.name for optimizer in optimizers}
    walking = ["SGD", *(names[cls] for cls in classes)][:4] if classes else ["SGD", "Momentum", "Adam"]
    data = "\n".join(
        (
            f"const LANDSCAPES = [\n{_joined(map(landscape_text, LANDSCAPES))}];",
            f"const OPTIMIZERS = [\n{_joined(optimizer.text() for optimizer in optimizers)}];",
            f"const WALKING = {json.dumps(walking)};",
        )
    )
    template = _file("index.html")
    for place, text in {
        "/* STYLE */": _file("style.css"),
        "/* DATA */": _in_script(data),
        "/* SCRIPT */": "\n".join(map(_file, _SCRIPTS)),
    }.items():
        before, after = template.split(place)
        template = before + text + after
    return template


def _joined(texts: Any) -> str:
    return ",\n".join(texts)


def _in_script(text: str) -> str:
    """Text that does not end the script in which it stands."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")
