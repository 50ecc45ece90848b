"""Break the engines one line at a time: do the tests that are there for the line notice?

``python -m tests.mutations`` works in a copy of the checkout and prints a table; ``python -m tests.mutations
"step count"`` tries those whose names contain the words. It ends with 1 if a broken line went unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from .broken_lines import MUTATIONS, PACKAGE, Mutation

ROOT = Path(__file__).parents[1]
# What the tests below need of the checkout, besides themselves.
COPIED = (PACKAGE, "tests", "pyproject.toml")
# A broken line may also make tests hang, so that they take this many times as long: that is noticed too.
PATIENCE = 20


def mutate(home: Path, mutation: Mutation) -> str:
    """Break the line in a copy; returns the file as it was.

    Raises:
        ValueError: the line is not there, or more than once.
    """
    path = home / PACKAGE / mutation.file
    text = path.read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {mutation.old!r} {count} times, expected once"
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return text


def run_tests(home: Path, tests: tuple[str, str], most_seconds: float | None = None) -> int | None:
    """Pytest's exit status in a copy; ``None`` if it took too long."""
    # A cache of their own: what is not broken is compiled once.
    environment = {**os.environ, "PYTHONPATH": str(home), "NUMBA_CACHE_DIR": str(home / "kernels")}
    file, words = tests
    options = ["-q", "-x", "-p", "no:cacheprovider", *(["-k", words] if words else [])]
    command = [sys.executable, "-m", "pytest", *options, f"tests/{file}"]
    try:
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=most_seconds)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def seconds_of(home: Path, tests: tuple[str, str]) -> float:
    """How long the tests take while nothing is broken.

    Raises:
        RuntimeError: they fail all the same, or there are none.
    """
    start = perf_counter()
    if status := run_tests(home, tests):
        raise RuntimeError(f"nothing is broken, but pytest ends with {status} for {' '.join(tests)}")
    return perf_counter() - start


def verdict(status: int | None) -> str:
    """What became of the tests of a broken line.

    Raises:
        RuntimeError: they were not run.
    """
    if status == 0:
        return UNNOTICED
    if status is None:
        return "noticed: it hung"
    if status < 0:
        return "noticed: it crashed"
    # A file that cannot be imported any more ends pytest with 2, a fixture that fails with 1.
    if status in (1, 2, 3):
        return "noticed"
    raise RuntimeError(f"pytest ended with {status}: the tests were not run")


UNNOTICED = "NOT NOTICED"


def main(words: str) -> int:
    chosen = [mutation for mutation in MUTATIONS if words in mutation.name]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, home / name)
        for mutation in chosen:  # each line is there
            (home / PACKAGE / mutation.file).write_text(mutate(home, mutation), encoding="utf-8")
        usual = {tests: seconds_of(home, tests) for tests in {mutation.tests: None for mutation in chosen}}
        print("| broken | what is wrong then | tests | |\n|---|---|---|---|")
        for mutation in chosen:
            before = mutate(home, mutation)
            found.append(verdict(run_tests(home, mutation.tests, PATIENCE * usual[mutation.tests])))
            (home / PACKAGE / mutation.file).write_text(before, encoding="utf-8")
            tests = " ".join(mutation.tests)
            print(f"| {mutation.file} | {mutation.name} | {tests} | {found[-1]} |", flush=True)
    print(f"{len(chosen) - found.count(UNNOTICED)} of {len(chosen)} broken lines were noticed")
    return int(UNNOTICED in found)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
