"""``python -m benchmarks.cuda``: on a GPU, ours beside torch's; writes ``cuda.json`` and ``cuda.md``.

A whole run takes under three minutes. Cases are measured in a forked process and written one by one: what
ends that process, as a kernel that goes astray does, costs its own case, and the next process goes on.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from time import perf_counter

import torch

from .. import readme
from ..fresh_process import ROOT
from ..plan import is_asked_for
from .pages import markdown
from .plan import SECONDS, Setting, all_cases
from .record import new_record, read
from .steps import copy_bandwidth

RESULTS = ROOT / "benchmarks" / "results"
COPY = "copy GB/s"
NO_DEVICE, DEVICE_IS_LOST = 3, 4  # exit codes of the process that measures
STUCK = 60.0  # seconds after which a case is given up


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _command_line()
    options = parser.parse_args(arguments)
    cases = all_cases()
    labels = [label for label in cases if is_asked_for(label, options.only)]
    if not labels:
        parser.error("--only: none of these is meant:\n" + "\n".join(cases))
    with tempfile.TemporaryDirectory() as nowhere:
        folder = options.out or (RESULTS if options.device == "cuda" else Path(nowhere))
        folder.mkdir(parents=True, exist_ok=True)
        path: Path = folder / "cuda.json"
        measure_all(labels, options, path)
        record = read(path)
        order = [label for label in cases if label in record.rows]
        record.rows = {label: record.rows[label] for label in order}
        record.write(path)
        (folder / "cuda.md").write_text(markdown(record), encoding="utf-8")
        print(f"\n{markdown(record)}")
    if folder == RESULTS:
        readme.main()


def measure_all(labels: Sequence[str], options: argparse.Namespace, path: Path) -> None:
    """Let processes measure until each case has a row, or a reason why it has none.

    Raises:
        SystemExit: there is no such device, or a process ends before it begins a case.
    """
    deadline = perf_counter() + options.limit
    begin, remaining = True, list(labels)
    while remaining:
        process = multiprocessing.get_context("fork").Process(
            target=measure, args=(remaining, options, path, deadline, begin)
        )
        before = _written(path)
        process.start()
        is_stuck = _ends_or_is_stuck(process, path)
        if process.exitcode == NO_DEVICE:
            raise SystemExit("there is no CUDA device here: nothing was measured")
        if _written(path) == before:  # what is there is of another run
            raise SystemExit(f"a process ended with {process.exitcode} before it measured anything")
        record = read(path)
        if record.running is not None:
            ended = "took too long" if is_stuck else f"ended its process with {process.exitcode}"
            record.failed[record.running] = ended
            print(f"{record.running}: {ended}", flush=True)
            record.running = None
            record.write(path)
        left = [label for label in remaining if label not in record.rows and label not in record.failed]
        begin, remaining = False, left


def _written(path: Path) -> int:
    """When that was, 0 for never."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _ends_or_is_stuck(process: ForkProcess, path: Path) -> bool:
    """Wait for its end; true if it wrote nothing for so long that it was ended."""
    started = time.time()
    while process.is_alive():
        process.join(1.0)
        wrote = path.stat().st_mtime if path.exists() else started
        if time.time() - max(wrote, started) > STUCK:
            process.kill()
            process.join()
            return True
    return False


def measure(
    labels: Sequence[str], options: argparse.Namespace, path: Path, deadline: float, begin: bool
) -> None:
    """Measure these cases one by one, in this process.

    Args:
        begin: the first process of a run: with ``--only`` it takes over the record that is there, if that is
            of the same device and versions, without what is now measured again; otherwise it makes a new one.
    """
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(NO_DEVICE)
    record = new_record(device)
    if path.exists() and (not begin or options.only) and (before := read(path)).is_same(record):
        record = before
    if begin:
        for label in labels:
            record.rows.pop(label, None)
            record.failed.pop(label, None)
        record.facts[COPY] = copy_bandwidth(device) / 1e9
        _say(f"{record.device}, {record.versions}, {record.facts}")
    seconds = dict.fromkeys(SECONDS, options.seconds) if options.seconds else SECONDS
    setting, cases = Setting(device, seconds, record.facts[COPY] * 1e9), all_cases()
    for number, label in enumerate(labels, 1):
        if perf_counter() > deadline:
            record.failed[label] = "no time was left"
            _say(f"{label}: no time was left")
            continue
        record.running = label
        record.write(path)
        start = perf_counter()
        try:
            row = cases[label](setting)
        except Exception as error:  # whatever it is, the other cases are measured
            record.failed[label] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            traceback.print_exc()
            _say(f"[{number}/{len(labels)}] {label}: {record.failed[label]}")
        else:
            row.seconds = perf_counter() - start
            record.rows[label] = row
            _say(f"[{number}/{len(labels)}] {label}: {row.line()}")
        record.running = None
        record.write(path)
        _clean_up(device)
    record.write(path)


def _clean_up(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError as error:  # after an illegal access nothing works any more in this process
            _say(f"the device is lost: {error}")
            sys.exit(DEVICE_IS_LOST)


def _say(text: str) -> None:
    print(text, flush=True)


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help='measure these and keep what the record holds of others: "loop Adam", "alone billion", storing',
    )
    parser.add_argument(
        "--seconds", type=float, help=f"to measure each case (default by part: {_seconds_text()})"
    )
    parser.add_argument(
        "--limit", type=float, default=140.0, help="seconds after which no case is begun (default 140)"
    )
    parser.add_argument(
        "--device", default="cuda", choices=["cuda", "cpu"], help="cpu: a try, with tiny models"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of cuda.json and cuda.md (default benchmarks/results; with --device cpu none)",
    )
    return parser


def _seconds_text() -> str:
    return ", ".join(f"{part} {seconds}" for part, seconds in SECONDS.items())


if __name__ == "__main__":
    main()
