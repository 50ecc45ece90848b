"""``python -m benchmarks``: measure, print the tables, write JSON, markdown and a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from .bandwidth import Bandwidth, streaming_bandwidth
from .cases import Case, NotEnoughMemoryError, step_alone, training_iteration
from .machine import this_machine
from .report import Report
from .startup import measure_startup
from .tables import Table, bandwidth_table, iteration_tables, startup_table, step_tables
from .timing import Pace
from .workloads import MODELS, OPTIMIZERS, ModelCase, OptimizerCase

SECTIONS = ("step", "iteration", "bandwidth", "import")
# A whole iteration is mostly forward and backward pass: two optimizers are enough unless others are named.
ITERATION_OPTIMIZERS = ("Adam", "Momentum")
RESULTS = Path(__file__).parent / "results"
NOISY_LOAD = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    options = _command_line().parse_args(arguments)
    quick: bool = options.quick
    seconds: float = options.seconds or (0.4 if quick else 6.0)
    pace = Pace(seconds, least_rounds=3 if quick else 5)
    threads: list[int] = options.threads or [torch.get_num_threads()]
    names = options.models or [name for name in MODELS if not quick or name != "gpt2"]
    models = [MODELS[name] for name in names]

    settings = {name: value for name, value in vars(options).items() if name != "out"}
    report = Report(this_machine(), {**settings, "seconds": seconds})
    load = report.machine.load
    if load is not None and load > NOISY_LOAD:
        _progress(f"the machine was busy before the run (load {load:.1f}): expect noise")

    if "bandwidth" in options.only:
        report.bandwidths = _bandwidths(threads)
    if "step" in options.only:
        optimizers = [OPTIMIZERS[name] for name in options.optimizers or OPTIMIZERS]
        plan = _plan(models, optimizers, threads, also_one=not options.threads)
        report.steps = _measure("step alone", step_alone, plan, pace, report.skipped)
        if report.bandwidths:  # a limit should not depend on one quiet or busy moment
            again = zip(report.bandwidths, _bandwidths(threads), strict=True)
            report.bandwidths = [before.or_better(after) for before, after in again]
        _show(step_tables(report))
    if "iteration" in options.only:
        optimizers = [OPTIMIZERS[name] for name in options.optimizers or ITERATION_OPTIMIZERS]
        trainable = [model for model in models if model.network is not None]
        plan = _plan(trainable, optimizers, threads, also_one=not options.threads)
        report.iterations = _measure("iteration", training_iteration, plan, pace, report.skipped)
        _show(iteration_tables(report))
    if report.bandwidths:
        _show([bandwidth_table(report.bandwidths)])
    if "import" in options.only:
        _progress("start of a process")
        report.startup = measure_startup(imports=3 if quick else 7, first_steps=1 if quick else 3)
        _show([startup_table(report.startup)])
    print(f"\nCUDA: {report.cuda}")

    partial = quick or options.models or options.optimizers or options.threads
    is_record = not partial and set(options.only) == set(SECTIONS)
    for path in report.write(options.out or (RESULTS if is_record else RESULTS / "partial")):
        _progress(f"wrote {path}")


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare the optimizers with torch's own: default, foreach=True and fused=True, "
        "interleaved in one process. A whole run takes about ten minutes on two cores.",
    )
    parser.add_argument("--quick", action="store_true", help="a minute in all: fewer repetitions, no GPT-2")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to measure")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="default: all")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, help="default: all")
    parser.add_argument(
        "--threads",
        nargs="+",
        type=_positive_int,
        help="default: torch's default, and for models that fit into the caches also one thread",
    )
    parser.add_argument(
        "--seconds", type=_positive_float, help="to measure each case (default 6, with --quick 0.4)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for cpu.json, cpu.md and cpu.png (default benchmarks/results; its subfolder partial "
        "for a run that leaves something out)",
    )
    return parser


def _positive_int(text: str) -> int:
    if (value := int(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _positive_float(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


Plan = list[tuple[OptimizerCase, ModelCase, int]]


def _plan(
    models: Sequence[ModelCase],
    optimizers: Sequence[OptimizerCase],
    threads: Sequence[int],
    *,
    also_one: bool,
) -> Plan:
    """All cases of a section; with ``also_one``, small models once more with one thread.

    Timings of small models on two threads jump when anything else runs; with one thread they do not.
    """
    plan = [(optimizer, model, count) for count in threads for model in models for optimizer in optimizers]
    if also_one and 1 not in threads:
        plan += [(optimizer, model, 1) for model in models if not model.large for optimizer in optimizers]
    return plan


def _bandwidths(threads: Sequence[int]) -> list[Bandwidth]:
    _progress("streaming bandwidth")
    return [streaming_bandwidth(count) for count in threads]


def _measure(
    section: str,
    measure: Callable[[OptimizerCase, ModelCase, int, Pace], Case],
    plan: Plan,
    pace: Pace,
    skipped: list[str],
) -> list[Case]:
    cases = []
    for i, (optimizer, model, threads) in enumerate(plan, 1):
        label = f"{section}, {model.title}, {optimizer.name}, threads: {threads}"
        try:
            case = measure(optimizer, model, threads, pace)
        except NotEnoughMemoryError as error:
            skipped.append(f"{label}: {error}")
            _progress(f"[{i}/{len(plan)}] skipped {label}: {error}")
            continue
        cases.append(case)
        ratios = ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in case.ratios.items())
        _progress(f"[{i}/{len(plan)}] {label}: torch / ours {ratios}")
    return cases


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(tables: Iterable[Table]) -> None:
    for table in tables:
        print(f"\n{table.as_text()}", flush=True)


if __name__ == "__main__":
    main()
