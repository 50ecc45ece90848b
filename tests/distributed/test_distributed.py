"""Two and four processes, launched by `torchrun` over gloo: every scenario of `worker.py`, by name.

The optimizers run inside of DistributedDataParallel, FSDP2, ZeroRedundancyOptimizer and tensor parallelism as
torch's do, in float64 to 1e-10; what four processes save with torch.distributed.checkpoint goes on in two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.helpers import ROOT

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch is built without gloo", allow_module_level=True)

from tests.distributed.worker import scenarios

TIMEOUT = 240


def torchrun(processes: int, directory: Path) -> dict[str, list[str]]:
    """Run all scenarios; returns the outcome in each rank, by scenario."""
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
            *("-m", "tests.distributed.worker", str(directory)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = launcher.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        # torchrun hands the signal on to its processes.
        launcher.send_signal(signal.SIGTERM)
        output = f"stopped after {TIMEOUT} seconds\n" + launcher.communicate(timeout=60)[0]
    outcomes: dict[str, list[str]] = {}
    for rank in range(processes):
        report = directory / f"{processes}-{rank}.jsonl"
        lines = report.read_text().splitlines() if report.exists() else []
        done = dict(json.loads(line) for line in lines)
        for name, _ in scenarios(processes):
            outcome = done.get(name, f"did not run or did not end, see those before it.\n{output[-3000:]}")
            outcomes.setdefault(name, []).append(outcome)
    return outcomes


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], Path]:
    directory = tmp_path_factory.mktemp("four")
    return torchrun(4, directory), directory


@pytest.fixture(scope="module")
def two(four: tuple[dict[str, list[str]], Path]) -> dict[str, list[str]]:
    return torchrun(2, four[1])


def assert_ok(outcomes: list[str]) -> None:
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(outcomes) if text != "ok"]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("name", [name for name, _ in scenarios(4)])
def test_four_processes(name: str, four: tuple[dict[str, list[str]], Path]) -> None:
    assert_ok(four[0][name])


@pytest.mark.parametrize("name", [name for name, _ in scenarios(2)])
def test_two_processes(name: str, two: dict[str, list[str]]) -> None:
    assert_ok(two[name])
