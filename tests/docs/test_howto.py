"""The script of docs/howto/several_machines.md: two processes end where one does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ..helpers import ROOT


@pytest.mark.slow
def test_two_processes_end_where_one_does() -> None:
    losses = []
    for number in ("1", "2"):
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", number]
        done = subprocess.run(
            [sys.executable, *words, ROOT / "docs" / "howto" / "ddp.py"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = re.search(rf"^{number} processes, loss (\S+)$", done.stdout, re.MULTILINE)
        assert said, done.stderr
        losses.append(float(said[1]))
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)  # as many digits as it prints
    assert losses[0] < 1e-3
