"""Every test starts with a known seed and leaves torch's global switches as it found them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Compiled kernels of the tests stay in the checkout, apart from the user's own. Set before the first import.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from torchopt_course.engines.native import step as native

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


def pytest_collection_finish() -> None:
    """The garbage collector need not look through torch and thousands of tests each time: half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _compiled_step() -> None:
    """Otherwise it would depend on the order of the tests which of them step by compiled code."""
    native.make_ready()


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
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
