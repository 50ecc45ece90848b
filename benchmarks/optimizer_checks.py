"""What the kit finds in everybody's optimizers: `python -m benchmarks.optimizer_checks`.

It runs the checks of :func:`torchopt_course.testing.optimizer_checks` over this package, ``torch.optim``,
``pytorch_optimizer``, ``timm`` and ``optimi`` where they are installed (``pip install pytorch_optimizer timm
torch-optimi``), each optimizer as its constructor makes it, and writes docs/optimizer_checks.md. A run of one
library, ``--library timm``, leaves the others' part of the table as it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import SkipTest

import torch

from torchopt_course.testing import OptimizerError, optimizer_checks
from torchopt_course.testing.optimizers import SHAPES
from torchopt_course.testing.optimizers.catalogue import PROMISES

from .checked_optimizers import LIBRARIES, Subject
from .checked_optimizers_table import page, remarks_of

RESULTS = Path(__file__).parent / "results" / "optimizer_checks.json"
PAGE = Path(__file__).parents[1] / "docs" / "optimizer_checks.md"
MATRICES = ((8, 8), (5, 3), (3, 5), (16, 4))
# Seconds that the processor works, so that it does not matter what else the machine does.
PATIENCE = 15  # for a check
MOST = 45  # for an optimizer; what is not done by then is left out
HANGS = 300  # by the clock


class TooLong(BaseException):
    """No fault, and nothing that anybody on the way may catch."""


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Give up after some seconds.

    Raises:
        TooLong: then.
    """

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TooLong

    before = [(each, signal.signal(each, ring)) for each in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for each, handler in before:
            signal.signal(each, handler)


def verdicts(subject: Subject, skipped: set[str]) -> dict[str, str | None]:
    """Of each check: "" if it passes, what is wrong, or ``None`` if it does not apply."""
    options, end = dict(subject.options), time.process_time() + MOST
    found: dict[str, str | None] = {}
    if "shapes" not in options:
        found |= run(subject, options, {"shapes", "layouts"}, only=True)
        if found["shapes"] or found["layouts"]:
            refused = found["shapes"]
            if refused:  # then the layouts are asked anew, of the shapes that it takes
                del found["layouts"]
            options["shapes"] = shapes_taken(subject) or MATRICES
            if options["shapes"] is MATRICES and run(subject, options, {"shapes"}, only=True)["shapes"]:
                return {"": f"can step none of the parameters: {str(refused).partition(': ')[2]}"}
    return run(subject, options, set(found) | skipped, end=end) | found


def run(
    subject: Subject,
    options: dict[str, Any],
    names: set[str],
    *,
    only: bool = False,
    end: float = math.inf,
) -> dict[str, str | None]:
    """The checks with these names, or all but those, until the end."""
    found: dict[str, str | None] = {}
    for case in optimizer_checks(subject.make, **options):
        if (case.name in names) is not only or found.get(case.name):
            continue
        if time.process_time() > end:
            found.setdefault(case.name, None)
            continue
        try:
            with patience(PATIENCE), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case()
        except OptimizerError as error:
            found[case.name] = " ".join(str(error).removeprefix(f"{case.trial.name}, ").split())
        except (SkipTest, TooLong):
            found.setdefault(case.name, None)
        else:
            found[case.name] = ""
    return found


def shapes_taken(subject: Subject) -> list[tuple[int, ...]]:
    """Those that it can step; not the empty one, which may break a later step all the same."""
    shapes = [shape for shape in SHAPES if 0 not in shape]
    return [
        shape for shape in shapes if not run(subject, {"shapes": [shape]}, {"shapes"}, only=True)["shapes"]
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--library", choices=LIBRARIES, action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--optimizer", action="append", help="only the one with this name; may be repeated")
    parser.add_argument("--skip", action="append", default=[], help="leave out the check with this name")
    parser.add_argument("--check", action="append", help="only the check with this name; may be repeated")
    options = parser.parse_args(arguments)
    others = {promise.name for promise in PROMISES}.difference(options.check) if options.check else set()
    skipped = others.union(options.skip)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.library or LIBRARIES:
        distribution, subjects = LIBRARIES[name]
        try:
            number = version(distribution)
        except PackageNotFoundError:
            print(f"{distribution} is not installed: its part of the table stays as it is", file=sys.stderr)
            continue
        rows: dict[str, dict[str, str | None]] = {}
        for subject in subjects():
            if options.optimizer and subject.name not in options.optimizer:
                continue
            begun = time.perf_counter()
            row: dict[str, str | None] = {"": subject.reason}
            if subject.reason is None:
                row = verdicts(subject, skipped)
            rows[subject.name] = row
            faults = [f"  {check}: {fault}" for check, fault in row.items() if fault]
            print(
                f"{name}.{subject.name} ({time.perf_counter() - begun:.0f} s)", *faults, sep="\n", flush=True
            )
            old = results.get(name, {}).get("rows", {})
            merged = {
                key: {**({} if "" in value else old.get(key, {})), **value} for key, value in rows.items()
            }
            results[name] = {"version": number, "rows": {**old, **merged}}
            results = {key: results[key] for key in LIBRARIES if key in results}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    old_page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(results, remarks_of(old_page)), encoding="utf-8")


if __name__ == "__main__":
    main()
