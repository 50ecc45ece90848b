"""The table of the zoo: `python -m recipes.zoo` writes docs/zoo.md.

Times are those of one thread. A peer that is not installed is "not measured".
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from recipes.common.command_line import parse, plain_endings
from recipes.common.errors import OptionError
from torchopt_course import ElementwiseOptimizer

from . import ZOO

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
NOT_MEASURED = "not measured"
# Somebody else's class, and the options without which it would be another algorithm.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{name: ("torch.optim", name, {}) for name in ("Rprop", "Adadelta", "Adamax", "NAdam", "RAdam")},
    **{
        name: ("pytorch_optimizer", name, {})
        for name in ("AdaBelief", "Yogi", "Lion", "Adan", "ADOPT", "AdEMAMix", "MADGRAD")
    },
    "LAMB": ("timm.optim", "Lamb", {"max_grad_norm": None}),
    "LARS": ("timm.optim", "Lars", {"momentum": 0.9, "weight_decay": 1e-4}),
    "StableAdamW": ("optimi", "StableAdamW", {"lr": 1e-3, "triton": False}),
    "ScheduleFreeAdamW": ("schedulefree", "AdamWScheduleFree", {}),
    "SAM": ("pytorch_optimizer", "SAM", {"base_optimizer": torch.optim.SGD, "lr": 1e-3, "momentum": 0.9}),
}


@dataclass(frozen=True)
class Options:
    """Write the table of the zoo: lines, engine, and how long a step takes beside somebody else's."""

    page: Path = PAGE
    """Where to write."""
    rounds: int = 200
    """Steps of each contender, in turns of ten; 0 measures nothing."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        if self.rounds < 0:
            raise OptionError(f"--rounds must be at least 0, not {self.rounds}")


class Row(NamedTuple):
    """What the table says of an optimizer."""

    name: str
    file: str
    source: str
    lines: int
    engine: str


def row_of(cls: type[ElementwiseOptimizer]) -> Row:
    """What the code itself says of an optimizer."""
    file = Path(inspect.getfile(cls)).relative_to(PAGE.parents[1])
    text = inspect.getdoc(cls) or ""
    source = " ".join(text.rpartition("Source: ")[2].split()) if "Source: " in text else text.split(":")[0]
    optimizer, step = stepping(cls)
    step()
    engine = optimizer.engine_report().partition(" engine")[0]  # type: ignore[attr-defined]
    return Row(cls.__name__, file.as_posix(), source, lines_of(cls), engine)


def lines_of(cls: type[ElementwiseOptimizer]) -> int:
    """Lines of code from `class` to the last: without the docstring, comments and blank lines."""
    source = textwrap.dedent(inspect.getsource(cls))
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    described = tree.body[0]
    lines = source.splitlines()
    docstring = range(described.lineno - 1, described.end_lineno or 0)
    code = [line.strip() for i, line in enumerate(lines) if i not in docstring]
    return sum(bool(line) and not line.startswith("#") for line in code)


def stepping(make: Callable[..., Any]) -> tuple[Optimizer, Callable[[], Any]]:
    """An optimizer of the weights of a small network, with gradients, and how it takes a step."""
    shapes = ((256, 784), (256,), (128, 256), (128,), (10, 128), (10,))
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    optimizer: Optimizer = make(params)
    getattr(optimizer, "train", lambda: None)()
    takes_closure = "SAM" in type(optimizer).__name__
    return optimizer, (lambda: optimizer.step(lambda: 0.0)) if takes_closure else optimizer.step


def peer_of(name: str) -> Callable[..., Optimizer] | None:
    """Somebody else's optimizer of the same name, if it is installed."""
    module, attribute, options = PEERS[name]
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except ImportError:
        return None
    return lambda params: cls(params, **options)


def ratio(cls: type[ElementwiseOptimizer], rounds: int) -> str:
    """How many times longer the peer takes for a step: median of the ratios of turns of ten steps."""
    peer = peer_of(cls.__name__)
    if peer is None or not rounds:
        return NOT_MEASURED
    steps = [stepping(make)[1] for make in (cls, peer)]
    ratios = []
    for turn in range(-2, max(1, rounds // 10)):  # the first ones compile, and make the states
        taken = []
        for step in steps:
            start = perf_counter()
            for _ in range(10):
                step()
            taken.append(perf_counter() - start)
        if turn >= 0:
            ratios.append(taken[1] / taken[0])
    return f"{median(ratios):.1f}"


PAGE_TEXT = """\
# The zoo

<!-- `python -m recipes.zoo` writes this page. -->

Optimizers from their papers: the formula, and what it takes to make a class of it. Each takes the steps of an
independent implementation over 60 steps in float64, within 1e-9. All but SAM, whose `step` needs a closure,
pass `assert_optimizer_agrees`. [From paper to optimizer](from_paper_to_optimizer.md) shows how to write one.

| optimizer | lines | engine | peer's time / ours | peer | source |
|---|--:|---|--:|---|---|
{table}

Lines are those of the class, without docstring, comments and blank lines: {mean:.0f} in the mean,
from {least} to {most}.

Times are those of `step()`: the weights of an MLP 784-256-128-10 in float32, one thread, medians of turns,
peers with their defaults, torch {torch}. Larger than 1 means that ours is faster. SAM's closure does nothing.

Those on eager need a number of a whole tensor. Prodigy is not here: it needs a number over all tensors, which
no rule sees.
"""


def page_of(rows: list[Row], ratios: list[str]) -> str:
    """The page: what it is, the table, how it was measured."""
    lines = []
    for row, times in zip(rows, ratios, strict=True):
        module, attribute, _ = PEERS[row.name]
        link = f"[`{row.name}`](../{row.file})"
        cells = (link, str(row.lines), row.engine, times, f"`{module}.{attribute}`", row.source)
        lines.append(f"| {' | '.join(cells)} |")
    counts = [row.lines for row in rows]
    return PAGE_TEXT.format(
        table="\n".join(lines), mean=mean(counts), least=min(counts), most=max(counts),
        torch=torch.__version__.partition("+")[0],
    )  # fmt: skip


def main() -> None:
    """Write the page."""
    options = parse(Options)
    with plain_endings():
        options.check()
        torch.set_num_threads(1)
        rows = [row_of(cls) for cls in ZOO]
        ratios = [ratio(cls, options.rounds) for cls in ZOO]
        options.page.write_text(page_of(rows, ratios), encoding="utf-8")
        for row, times in zip(rows, ratios, strict=True):
            print(f"{row.name:18} {row.lines:3} lines  {row.engine:10} {times}")


if __name__ == "__main__":
    main()
