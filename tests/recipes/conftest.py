"""Makes `import recipes` work from any folder, and keeps torch to one thread while these tests run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def user_environment() -> dict[str, str]:
    """The environment of a user with a terminal 80 columns wide."""
    return {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@pytest.fixture
def shell(
    tmp_path: Path, user_environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python as a user would, in an empty folder, with nothing on the path that a user lacks."""

    def call(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env={**user_environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call
