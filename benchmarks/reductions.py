"""What numbers of whole tensors cost: ``python -m benchmarks.reductions``, or a part of it by name.

Clipping by the norm over all gradients, in Adam's own rule, beside Adam alone and beside torch's
``clip_grad_norm_`` with its fused Adam; LAMB (two norms of each tensor) beside timm's, StableAdamW (a mean of
each) beside optimi's. All contenders step the same parameters with the same gradients, in turns. Each part
adds its rows to ``benchmarks/results/reductions.json``, and reductions.md is written from all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import nn

import torchopt_course as oc
from torchopt_course import ElementwiseOptimizer, xp

from .fresh_process import ROOT
from .machine import this_machine, torch_threads
from .timing import Call, Pace, interleave, microseconds, ratio
from .workloads import MODELS, random_parameters

RESULTS = Path(__file__).parent / "results"
RATE, MAX_NORM = 1e-6, 1.0
Parameters = list[nn.Parameter]


class ClippedAdam(ElementwiseOptimizer):
    """Adam after ``g ← g · min(1, c / ‖g‖)``, with the norm over all gradients of the optimizer."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 1e-3, max_norm: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "max_norm": max_norm})

    @staticmethod
    def coefficients(step: Any, lr: Any, max_norm: Any) -> dict[str, Any]:
        return {
            "size": lr / (1 - 0.9**step),
            "unbias": (1 - 0.999**step) ** -0.5,
            "max_norm": max_norm,
        }

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, size: Any, unbias: Any, max_norm: Any
    ) -> tuple[Any, ...]:
        g = g * xp.clamp(max_norm / (xp.norm(g, over="all") + 1e-6), max=1.0)
        exp_avg = exp_avg + 0.1 * (g - exp_avg)
        exp_avg_sq = exp_avg_sq + 0.001 * (g * g - exp_avg_sq)
        return p - size * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + 1e-8), exp_avg, exp_avg_sq


def clipped_adam(params: Parameters) -> Call:
    return ClippedAdam(params, lr=RATE, max_norm=MAX_NORM).step


def adam(params: Parameters) -> Call:
    return oc.Adam(params, lr=RATE).step


def clip_and_step(params: Parameters) -> Call:
    optimizer = torch.optim.Adam(params, lr=RATE, fused=True)

    def step() -> None:
        nn.utils.clip_grad_norm_(params, MAX_NORM)
        optimizer.step()

    return step


def of_zoo(file: str, name: str) -> Callable[[Parameters], Call]:
    def build(params: Parameters) -> Call:
        # From its file: the whole zoo needs all that the recipes need.
        spec = spec_from_file_location(file, ROOT / "recipes" / "zoo" / f"{file}.py")
        assert spec is not None, "it is a Python file"
        assert spec.loader is not None, "so it can be loaded"
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        step: Call = getattr(module, name)(params, lr=RATE).step
        return step

    return build


def timms_lamb(params: Parameters) -> Call:
    from timm.optim import Lamb

    step: Call = Lamb(params, lr=RATE, weight_decay=0.01, max_grad_norm=None).step
    return step


def optimis_stable_adamw(params: Parameters) -> Call:
    from optimi import StableAdamW

    step: Call = StableAdamW(params, lr=RATE, weight_decay=0.01, triton=False).step
    return step


@dataclass(frozen=True)
class Comparison:
    """Our step beside another one.

    Attributes:
        package: whose the other one is.
        aim: what their time by ours is to reach; of Adam alone, what it is to be no less than.
    """

    ours: Callable[[Parameters], Call]
    theirs: Callable[[Parameters], Call]
    label: str
    package: str
    aim: float
    models: tuple[str, ...] = ("resnet18", "gpt2")


COMPARISONS = {
    "clip": Comparison(
        *(clipped_adam, adam, "clipped Adam / Adam alone (ours)", "torchopt_course", 1 / 1.35),
        ("lenet", "resnet18", "gpt2"),
    ),
    "torch-clip": Comparison(
        *(clipped_adam, clip_and_step, "clipped Adam / clip_grad_norm_ + fused Adam (torch)", "torch", 1.0),
        ("lenet", "resnet18", "gpt2"),
    ),
    "lamb": Comparison(of_zoo("lamb", "LAMB"), timms_lamb, "LAMB / Lamb (timm)", "timm", 3.0),
    "stable-adamw": Comparison(
        of_zoo("stable_adamw", "StableAdamW"),
        optimis_stable_adamw,
        "StableAdamW / StableAdamW (optimi)",
        "torch-optimi",
        2.0,
    ),
}


@dataclass(frozen=True)
class Row:
    """Ours beside another one on one model; milliseconds, and their time by ours with its quartiles."""

    comparison: str
    model: str
    threads: int
    date: str
    version: str
    ours: float
    theirs: float
    ratio: tuple[float, float, float]


def measure(name: str, model: str, threads: int, seconds: float) -> Row:
    comparison = COMPARISONS[name]
    with torch_threads(threads):
        torch.manual_seed(0)
        params = random_parameters(MODELS[model].shapes())
        steps = {"theirs": comparison.theirs(params), "ours": comparison.ours(params)}
        samples = interleave(steps, Pace(seconds, least_rounds=3))
    found = ratio(samples["theirs"], samples["ours"])
    return Row(
        comparison=name,
        model=model,
        threads=threads,
        date=datetime.now().astimezone().isoformat(timespec="minutes"),
        version=version(comparison.package),
        ours=microseconds(samples["ours"]).median / 1000,
        theirs=microseconds(samples["theirs"]).median / 1000,
        ratio=(found.median, found.lower, found.upper),
    )


def page(rows: list[Row]) -> str:
    """The table of all that was measured."""
    lines = [
        "| ours / theirs | model | threads | ours, ms | theirs, ms | their time / ours | quartiles | aim |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for row in rows:
        comparison = COMPARISONS[row.comparison]
        middle, lower, upper = row.ratio
        cells = (
            f"{comparison.label} {row.version}",
            *(MODELS[row.model].title, str(row.threads), f"{row.ours:,.3g}", f"{row.theirs:,.3g}"),
            *(f"{middle:.2f}", f"{lower:.2f} to {upper:.2f}", f"{comparison.aim:.2f}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    dates = sorted(row.date for row in rows)
    return (
        "# Numbers of whole tensors\n\n"
        f"{this_machine().facts()}\n- rows measured from {dates[0]} to {dates[-1]}\n\n"
        "Medians of a step on fixed gradients, in turns, on the same float32 parameters. A clipped step that "
        "takes 1.35 times as long as Adam's alone has a ratio of 0.74.\n\n"
        + "\n".join(lines)
        + "\n\n`python -m benchmarks.reductions` wrote this.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reductions")
    parser.add_argument("comparisons", nargs="*", choices=[[], *COMPARISONS], help="default: all")
    parser.add_argument("--models", nargs="*", choices=MODELS, help="default: all of a comparison's")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    store = RESULTS / "reductions.json"
    known = json.loads(store.read_text()) if store.exists() else []
    rows = {(row["comparison"], row["model"], row["threads"]): Row(**row) for row in known}
    for name in options.comparisons or COMPARISONS:
        for model in COMPARISONS[name].models:
            for threads in options.threads:
                if options.models and model not in options.models:
                    continue
                try:
                    row = rows[name, model, threads] = measure(name, model, threads, options.seconds)
                except (ImportError, PackageNotFoundError) as error:
                    print(f"{name}: not installed: {error}")
                    continue
                print(f"{name} {model} {threads}: {row.ours:.3g} / {row.theirs:.3g} ms, {row.ratio[0]:.2f}")
                order = list(COMPARISONS)
                every = sorted(
                    rows.values(),
                    key=lambda r: (order.index(r.comparison), *(list(MODELS).index(r.model), r.threads)),
                )
                store.write_text(json.dumps([asdict(each) for each in every], indent=1) + "\n")
                (RESULTS / "reductions.md").write_text(page(every))


if __name__ == "__main__":
    main()
