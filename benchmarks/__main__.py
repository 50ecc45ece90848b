"""``python -m benchmarks``: measure, print the tables, write JSON, markdown and a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import targets
from .bandwidth import streaming_bandwidth
from .cases import Case, NotEnoughMemoryError, measure
from .chart import draw
from .machine import this_machine
from .plan import all_cases, is_asked_for
from .report import Report, read
from .startup import measure_startup
from .tables import all_tables, is_disturbed, markdown, targets_text
from .timing import Pace
from .workloads import MODELS

RESULTS = Path(__file__).parent / "results"
NOISY_LOAD = 0.5
# To measure a case, by place and size: a forward and a backward pass come with each step of a loop.
SECONDS = {
    ("in the loop", False): 12.0,
    ("in the loop", True): 24.0,
    ("alone", False): 5.0,
    ("alone", True): 5.0,
}
BANDWIDTH, STARTUP = "streaming bandwidth", "start of a process: import"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _command_line()
    options = parser.parse_args(arguments)
    threads: list[int] = options.threads or [1, torch.get_num_threads()]
    cases = {case.label: case for case in all_cases(threads) if not (options.quick and case.model == "gpt2")}
    everything = [*cases, BANDWIDTH, STARTUP]
    labels = [label for label in everything if is_asked_for(label, options.only)]
    if not labels:
        parser.error("--only: none of these is meant:\n" + "\n".join(everything))

    is_record = not (options.quick or options.only or options.threads or options.seconds)
    folder: Path = options.out or (RESULTS if is_record else RESULTS / "partial")
    folder.mkdir(parents=True, exist_ok=True)
    report = _report_to_fill(folder / "cpu.json", afresh=not options.only)
    load = report.machine.load
    if load is not None and load > NOISY_LOAD:
        _progress(f"the machine was busy before the run (load {load:.1f}): expect noise")
    for i, label in enumerate(labels, 1):
        said = _measure(report, label, cases.get(label), threads, options)
        _progress(f"[{i}/{len(labels)}] {label}: {said}")
        report.write(folder / "cpu.json")  # a run that is stopped leaves what it has

    for table in all_tables(report):
        print(f"\n{table.as_text()}", flush=True)
    print(f"\n{targets_text(report)}")
    (folder / "cpu.md").write_text(markdown(report), encoding="utf-8")
    if report.results:
        draw(report, folder / "cpu.png")
    _progress(f"wrote cpu.json, cpu.md and the picture in {folder}")


def _measure(
    report: Report, label: str, case: Case | None, threads: Sequence[int], options: argparse.Namespace
) -> str:
    """Put what the label stands for into the report; returns a line about it."""
    quick: bool = options.quick
    if label == BANDWIDTH:
        report.bandwidths = {count: streaming_bandwidth(count) for count in sorted(set(threads))}
        return ", ".join(f"{limit.gigabytes_per_second:.1f} GB/s" for limit in report.bandwidths.values())
    if case is None:
        report.startup = measure_startup(imports=3 if quick else 7, first_steps=1 if quick else 3)
        return f"import {report.startup.ratio.median:.3f} of torch's"
    seconds = options.seconds or (0.4 if quick else SECONDS[case.where, MODELS[case.model].large])
    report.skipped.pop(label, None)
    try:
        result = measure(case, Pace(seconds, least_rounds=3 if quick else 9))
    except NotEnoughMemoryError as error:
        report.results.pop(label, None)
        report.skipped[label] = str(error)
        return f"skipped: {error}"
    report.results[label] = result  # in the place of an older one
    ratios = ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in result.step.ratios.items())
    busy = f", others had {result.others:.0%} of the machine" * is_disturbed(result)
    return f"{ratios}{', below target' * bool(targets.missed(result))}{busy}"


def _report_to_fill(path: Path, *, afresh: bool) -> Report:
    """A new one; with ``--only`` the one that is there, if it is of this machine and the same versions."""
    here = this_machine()
    if afresh or not path.exists():
        return Report(here)
    before = read(path)
    if before.machine.is_same(here):
        before.machine = here
        return before
    _progress(f"{path} is of another machine or of other versions: a new one is begun")
    return Report(here)


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare the optimizers with torch's own: default, foreach=True and fused=True, "
        "interleaved in one process, in a training loop and alone. A whole run takes some ten minutes.",
    )
    parser.add_argument("--quick", action="store_true", help="two minutes in all: fewer rounds, no GPT-2")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help='measure these and keep what the folder holds of others: "LeNet Adam", "loop 1 thread", import; '
        "a case is meant if each word begins one of its label's",
    )
    parser.add_argument(
        "--threads", nargs="+", type=_positive_int, help="numbers of threads (default: 1 and torch's default)"
    )
    parser.add_argument(
        "--seconds",
        type=_positive_float,
        help="to measure each case (default 12 to 24 in the loop, 5 alone, with --quick 0.4)",
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


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
