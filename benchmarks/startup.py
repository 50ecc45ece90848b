"""What a program waits for before its first update: the import, and the compilation of the first step.

Everything happens in fresh processes, in the order torch, ours, torch, ours, ..., and is read as medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from .timing import Spread, spread

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Startup:
    """All in seconds but the ratio.

    Attributes:
        import_torch, import_ours: whole processes that import one package and end.
        ratio: of the two, ours to torch's.
        first_step_ever: Adam on LeNet, nothing in the cache of compiled kernels.
        first_step_cached: the same in the next process.
    """

    import_torch: Spread
    import_ours: Spread
    ratio: Spread
    first_step_ever: Spread
    first_step_cached: Spread


def measure_startup(imports: int, first_steps: int) -> Startup:
    """Import both packages ``imports`` times, and take ``first_steps`` first steps with an empty cache."""
    for package in ("torch", "torchopt_course"):
        _import_seconds(package)  # files come from the disk, modules are compiled to .pyc
    pairs = [(_import_seconds("torch"), _import_seconds("torchopt_course")) for _ in range(imports)]
    ever, cached = zip(*(_first_step_seconds() for _ in range(first_steps)), strict=True)
    return Startup(
        import_torch=spread(torch for torch, _ in pairs),
        import_ours=spread(ours for _, ours in pairs),
        ratio=spread(ours / torch for torch, ours in pairs),
        first_step_ever=spread(ever),
        first_step_cached=spread(cached),
    )


def _import_seconds(package: str) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-c", f"import {package}"], check=True, cwd=ROOT)
    return perf_counter() - start


def _first_step_seconds() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as empty_cache:
        command = [sys.executable, "-m", "benchmarks.first_step"]
        environment = {**os.environ, "NUMBA_CACHE_DIR": empty_cache}
        outputs = [
            subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE).stdout
            for _ in range(2)
        ]
    ever, cached = map(float, outputs)
    return ever, cached
