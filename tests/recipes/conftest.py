"""Makes `import recipes` work from any folder, and keeps torch to one thread while these tests run."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

pytest.register_assert_rewrite("tests.recipes.interrupted")

from recipes.gallery import RECIPES  # noqa: E402
from recipes.trainer.run import run  # noqa: E402

from .tensorboard_of_runs import RUNS  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class SmokeRun(NamedTuple):
    """What a recipe has left behind, and what it has said."""

    folder: Path
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return content


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SmokeRun]:
    """Run a recipe at the size `smoke` as its command does, once for all tests of what came of it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # which all workers share
    root = root / "smoke"
    root.mkdir(exist_ok=True)

    def of(recipe: str) -> SmokeRun:
        folder, said = root / recipe, root / f"{recipe}.json"
        with open(root / f"{recipe}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                said.write_text(json.dumps(run_smoke(recipe, folder)))
        return SmokeRun(folder, *json.loads(said.read_text()))

    return of


@pytest.fixture(scope="session")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs."""
    folder = tmp_path_factory.mktemp("logs")
    for name, config in RUNS.items():
        run(dataclasses.replace(config, logdir=folder / name))
    return folder


def curves_of(folder: Path) -> dict[str, list[Any]]:
    """The points of every curve of a recipe, by chart and contender: "chart/contender"."""
    curves = {}
    for contender in (folder / "curves").iterdir():
        events = EventAccumulator(str(contender), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            curves[f"{tag.partition('/')[2]}/{contender.name}"] = events.Scalars(tag)
    return curves


def call_main(recipe: str) -> None:
    """What a script does when it is run: those that try a claim give their options to a shared `main`."""
    script = importlib.import_module(f"recipes.{recipe}")
    if recipe in RECIPES:
        script.main(script.__doc__, script.SIZES, script.run)
    else:
        script.main()


def run_smoke(recipe: str, folder: Path) -> tuple[str, str]:
    """Standard output and error of a run in this process."""
    torch.set_num_threads(1)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{recipe}.py", "--size", "smoke", "--logdir", str(folder)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            call_main(recipe)
    return out.getvalue(), err.getvalue()


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
