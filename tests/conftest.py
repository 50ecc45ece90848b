"""Every test starts with a known seed and leaves torch's global switches as it found them."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Compiled kernels of the tests stay in the checkout, apart from the user's own. Set before the first import.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

import pytest
from hypothesis import HealthCheck, Phase, settings

# No torch: with -n also the process that only hands out the tests reads this file, before the others start.
from .browser import CHROMIUM, Browser

# Compilation happens inside of examples: the first of its kind is slow and says nothing about the others.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    # Explaining a failure traces every line, the compiler's included: it would take minutes.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("suite")


# Files that share what costs seconds in each process that needs it: with -n they all go to one.
FORKS = {
    "distributed/test_distributed",
    *(f"recipes/test_{name}" for name in ("distributed", "killed", "broken_disks")),
}
TORCHS_DATA_BASES = {f"autograd/test_{name}" for name in ("extremes", "judge", "keywords", "refusals")}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As ``--dist loadfile`` has it, but for the files above."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            name = file.removeprefix("tests/").removesuffix(".py")
            return next((min(files) for files in (FORKS, TORCHS_DATA_BASES) if name in files), file)

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """The garbage collector need not look through torch and thousands of tests each time: half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A shell's background job ignores them, and so would each program that a test starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _compiled_step() -> None:
    """Otherwise it would depend on the order of the tests which of them step by compiled code."""
    from torchopt_course.engines.native import compiler, step

    compiler.cache_folder().mkdir(parents=True, exist_ok=True)
    with open(compiler.cache_folder() / "lock", "w") as lock:  # with -n one compiles it, the others load it
        fcntl.flock(lock, fcntl.LOCK_EX)
        step.make_ready()


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    import torch

    torch.manual_seed(0)
    # pytest-xdist runs one process on each core: torch's own threads would only fight over them.
    torch.set_num_threads(1)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests of a file."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
