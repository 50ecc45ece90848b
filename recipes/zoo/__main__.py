"""The table of the zoo: `python -m recipes.zoo` writes docs/zoo.md.

It takes a few minutes; `--only Lion ADOPT` measures some and keeps what the page has of the others. Times are
those of one thread. A peer that is not installed leaves the figure as it was.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
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
from recipes.common.folder import write_whole

from . import ZOO
from .lines import lines_of, lines_of_body

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
NOT_MEASURED = "not measured"
# Somebody else's class, and the options without which it would be another algorithm.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{
        name: ("torch.optim", name, {})
        for name in ("Rprop", "Adadelta", "Adamax", "NAdam", "RAdam", "Adafactor", "Muon")
    },
    **{
        name: ("pytorch_optimizer", name, {})
        for name in ("AdaBelief", "Yogi", "Lion", "Adan", "ADOPT", "AdEMAMix", "MADGRAD", "SOAP")
    },
    "LAMB": ("timm.optim", "Lamb", {"max_grad_norm": None}),
    "LARS": ("timm.optim", "Lars", {"momentum": 0.9, "weight_decay": 1e-4}),
    "StableAdamW": ("optimi", "StableAdamW", {"lr": 1e-3, "triton": False}),
    "Prodigy": ("prodigyopt", "Prodigy", {}),
    "ScheduleFreeAdamW": ("schedulefree", "AdamWScheduleFree", {}),
    "SAM": ("pytorch_optimizer", "SAM", {"base_optimizer": torch.optim.SGD, "lr": 1e-3, "momentum": 0.9}),
}
MATRICES_ONLY = ("Muon",)


@dataclass(frozen=True)
class Options:
    """Write the table of the zoo: lines, engine, and how long a step takes beside somebody else's."""

    page: Path = PAGE
    """Where to write."""
    only: tuple[str, ...] = ()
    """Measure these and keep what the page has of the others; all if none is named."""
    rounds: int = 200
    """Steps of each contender, in turns of ten; 0 measures nothing."""

    def check(self) -> None:
        """Refuse what cannot be measured."""
        if self.rounds < 0:
            raise OptionError(f"--rounds must be at least 0, not {self.rounds}")
        if self.page.is_dir() or not os.access(self.page.parent, os.W_OK):
            raise OptionError(f"--page must be a file in a folder that can be written to, not {self.page}")
        names = [cls.__name__ for cls in ZOO]
        if unknown := [name for name in self.only if name not in names]:
            raise OptionError(f"--only {unknown[0]}: expected some of {', '.join(names)}")


class Row(NamedTuple):
    """What the table says of an optimizer."""

    name: str
    file: str
    source: str
    of_rule: int
    lines: int
    engine: str


def row_of(cls: type[Any]) -> Row:
    """What the code itself says of an optimizer."""
    file = Path(inspect.getfile(cls)).relative_to(PAGE.parents[1])
    text = inspect.getdoc(cls) or ""
    source = " ".join(text.rpartition("Source: ")[2].split()) if "Source: " in text else text.split(":")[0]
    optimizer, step = stepping(cls.__name__, cls)
    step()
    engine = optimizer.engine_report().partition(":")[0].removesuffix(" engine")  # type: ignore[attr-defined]
    # SAM's rule is SGD's: what is its own is the step.
    counts = lines_of_body(cls, "rule", "step"), lines_of(cls)
    return Row(cls.__name__, file.as_posix(), source, *counts, engine)


def stepping(name: str, make: Callable[..., Any]) -> tuple[Optimizer, Callable[[], Any]]:
    """An optimizer of the weights of a small network, with gradients, and how it takes a step."""
    shapes: list[tuple[int, ...]] = [(256, 784), (256,), (128, 256), (128,), (10, 128), (10,)]
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    params = [param for param in params if param.dim() == 2 or name not in MATRICES_ONLY]
    grads = [torch.randn(param.shape, generator=generator) for param in params]

    def closure() -> float:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        return 0.0

    closure()
    optimizer: Optimizer = make(params)
    getattr(optimizer, "train", lambda: None)()
    return optimizer, (lambda: optimizer.step(closure)) if name == "SAM" else optimizer.step


def peer_of(name: str) -> Callable[..., Optimizer] | None:
    """Somebody else's optimizer of the same name, if it is installed."""
    module, attribute, options = PEERS[name]
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except ImportError:
        return None
    return lambda params: cls(params, **options)


def ratio(name: str, cls: type[Any], rounds: int) -> str | None:
    """How many times longer the peer takes for a step: median of the ratios of turns of ten steps."""
    peer = peer_of(name)
    if peer is None or not rounds:
        return None
    steps = [stepping(name, make)[1] for make in (cls, peer)]
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
independent implementation over 60 steps in float64, within 1e-9, and passes `assert_optimizer_agrees`
(Prodigy with `d0=0.1`: in float16 the square of its usual 10⁻⁶ is zero).
[From paper to optimizer](from_paper_to_optimizer.md) shows how to write one.

| optimizer | rule | all | engine | peer's time / ours | peer | source |
|---|--:|--:|---|--:|---|---|
{table}

Lines are without docstrings, imports, comments and blank lines. *rule*: the body of the formula,
{rule:.0f} in the mean, from {least_rule} to {most_rule}. *all*: the class with its options, their checks and
what else of its file it uses, {mean:.0f} in the mean, from {least} to {most}.

Times are those of `step()`: the weights of an MLP 784-256-128-10 in float32 (of Muon the matrices), one
thread, medians of turns, peers with their defaults, torch {torch}. Larger than 1 means that ours is faster.
SAM's closure only hands out the gradients. Rules that torch runs on whole tensors get copies, and all tensors
are looked at before the first is written, lest a step that fails change anything: of Adafactor's time that is
four tenths.
"""


def page_of(rows: list[Row], ratios: list[str]) -> str:
    """The page: what it is, the table, how it was measured."""
    lines = []
    for row, times in zip(rows, ratios, strict=True):
        module, attribute, _ = PEERS[row.name]
        link = f"[`{row.name}`](../{row.file})"
        counts = str(row.of_rule), str(row.lines)
        cells = (link, *counts, row.engine, times, f"`{module}.{attribute}`", row.source)
        lines.append(f"| {' | '.join(cells)} |")
    of_rule, of_all = [row.of_rule for row in rows], [row.lines for row in rows]
    return PAGE_TEXT.format(
        table="\n".join(lines), rule=mean(of_rule), least_rule=min(of_rule), most_rule=max(of_rule),
        mean=mean(of_all), least=min(of_all), most=max(of_all), torch=torch.__version__.partition("+")[0],
    )  # fmt: skip


def known_ratios(page: Path) -> dict[str, str]:
    """What a page says of the times."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return dict(re.findall(r"^\| \[`(\w+)`\]\([^|]*\|(?:[^|]*\|){3} ([^|]*) \|", text, re.M))


def main() -> None:
    """Write the page."""
    options = parse(Options)
    with plain_endings():
        options.check()
        torch.set_num_threads(1)
        rows, ratios = [row_of(cls) for cls in ZOO], known_ratios(options.page)
        for row, cls in zip(rows, ZOO, strict=True):
            measured = None
            if row.name in (options.only or PEERS):
                measured = ratio(row.name, cls, options.rounds)
            ratios[row.name] = measured or ratios.get(row.name, NOT_MEASURED)
            print(f"{row.name:18} {row.lines:3} lines  {row.engine:20} {ratios[row.name]}", flush=True)
        write_whole(options.page, page_of(rows, [ratios[row.name] for row in rows]).encode())


if __name__ == "__main__":
    main()
