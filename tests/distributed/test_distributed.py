"""Two and four processes over gloo, as `torchrun` launches them: every scenario of `worker.py`, by name.

The optimizers run inside of DistributedDataParallel, FSDP2, ZeroRedundancyOptimizer and tensor parallelism as
torch's do, in float64 to 1e-10; what four processes save with torch.distributed.checkpoint goes on in two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import torchopt_course
from tests.helpers import ROOT
from tests.processes import start_ranks

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch is built without gloo", allow_module_level=True)

from tests.distributed.networks import OPTIONS, network
from tests.distributed.worker import in_a_process, scenarios

pytestmark = pytest.mark.processes
TIMEOUT = 240


def outcomes(processes: int, directory: Path, said: Callable[[], str]) -> dict[str, list[str]]:
    """What the ranks have written: the outcome in each of them, by scenario."""
    found: dict[str, list[str]] = {}
    for rank in range(processes):
        report = directory / f"{processes}-{rank}.jsonl"
        lines = report.read_text().splitlines() if report.exists() else []
        done = dict(json.loads(line) for line in lines)
        for name, _ in scenarios(processes):
            outcome = done.get(name, f"did not run or did not end, see those before it.\n{said()[-3000:]}")
            found.setdefault(name, []).append(outcome)
    return found


def run(processes: int, directory: Path) -> dict[str, list[str]]:
    """Run all scenarios in forks of a process that has imported everything: torchrun's would do so each."""
    output = directory / f"{processes}.output"
    ranks = start_ranks(processes, in_a_process, directory, output)
    deadline = time.monotonic() + TIMEOUT
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        wait([rank.sentinel for rank in ranks if rank.is_alive()], deadline - time.monotonic())
        if any(rank.exitcode for rank in ranks):
            break  # the others wait for it
    for rank in ranks:
        rank.join(1)
        rank.kill()
        rank.join()
    return outcomes(processes, directory, output.read_text)


def compile_kernels() -> None:
    """Here, once, what otherwise each process of the launch would compile for itself, all at once."""
    for name, options in OPTIONS.items():
        params = [*network().parameters()]
        optimizer = getattr(torchopt_course, name)(params, **options)
        for _ in range(2):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], Path]:
    directory = tmp_path_factory.mktemp("four")
    compile_kernels()
    return run(4, directory), directory


@pytest.fixture(scope="module")
def two(four: tuple[dict[str, list[str]], Path]) -> dict[str, list[str]]:
    return run(2, four[1])


def assert_ok(outcomes_of_ranks: list[str]) -> None:
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(outcomes_of_ranks) if text != "ok"]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("name", [name for name, _ in scenarios(4)])
def test_four_processes(name: str, four: tuple[dict[str, list[str]], Path]) -> None:
    assert_ok(four[0][name])


@pytest.mark.parametrize("name", [name for name, _ in scenarios(2)])
def test_two_processes(name: str, two: dict[str, list[str]]) -> None:
    assert_ok(two[name])


@pytest.mark.slow
def test_launched_by_torchrun(tmp_path: Path) -> None:
    """As a user would; what two processes load was saved by four."""
    for processes in (4, 2):
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [sys.executable, *words, "-m", "tests.distributed.worker", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        for outcome in outcomes(processes, tmp_path, lambda: done.stdout).values():  # noqa: B023
            assert_ok(outcome)
