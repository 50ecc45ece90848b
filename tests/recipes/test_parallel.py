"""Small trainings in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.common.parallel import done_jobs, each_core

from .conftest import ROOT


@dataclass
class Square:
    value: int
    process: int
    threads: int


def square(number: int) -> Square:
    return Square(number**2, os.getpid(), torch.get_num_threads())


def test_processes_give_the_outcome_of_every_job_and_none_is_computed_twice(tmp_path: Path) -> None:
    def outcomes(*values: int) -> dict[Any, Square]:
        return dict(done_jobs(square, [(value,) for value in values], tmp_path / "kept", parallel=True))

    first = outcomes(3, 1, 2)
    assert {job: one.value for job, one in first.items()} == {(3,): 9, (1,): 1, (2,): 4}
    assert os.getpid() not in {one.process for one in first.values()}
    assert {one.threads for one in first.values()} == {1}
    # Of the same processes: they were not computed again.
    again = outcomes(2, 4, 3)
    assert {job: again[job] for job in ((2,), (3,))} == {job: first[job] for job in ((2,), (3,))}
    assert [*again] == [(2,), (3,), (4,)]
    assert again[4,].value == 16


def test_a_single_job_is_done_though_joblib_starts_no_process_for_it() -> None:
    (alone,) = each_core(square, [(5,)])
    assert (alone.value, alone.process) == (25, os.getpid())


ENDLESS = """
import os, pathlib, sys, time
from recipes.common.parallel import each_core

def wait(number):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(100)

list(each_core(wait, [(1,), (2,)]))
"""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_goes_on_when_the_recipe_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = ENDLESS.replace("sys.argv[1]", repr(str(tmp_path)))  # the worker has its own command line
    recipe = subprocess.Popen([sys.executable, "-c", script], env=environment)
    working = wait_for(lambda: [int(path.name) for path in tmp_path.iterdir()])
    assert recipe.pid not in working
    recipe.send_signal(number)
    recipe.wait()
    wait_for(lambda: not any(is_running(process) for process in working))


GALLERY = """
import pathlib, subprocess, sys
from recipes import gallery

gallery.RECIPES = ("endless",)
gallery.ROOT = pathlib.Path(sys.argv[1])
gallery.run(gallery.Config(size="smoke", logdir=gallery.ROOT))
"""
RECIPE = """
import os, pathlib, time
from recipes.common.command_line import plain_endings

with plain_endings():
    pathlib.Path(__file__).with_name(str(os.getpid())).touch()
    time.sleep(100)
"""


def test_no_recipe_goes_on_when_the_gallery_is_killed(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "endless.py").write_text(RECIPE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    whole = subprocess.Popen(
        [sys.executable, "-c", GALLERY, tmp_path], env=environment, stdout=subprocess.DEVNULL
    )
    folder = tmp_path / "recipes"
    [recipe] = wait_for(lambda: [int(path.name) for path in folder.iterdir() if path.name.isdecimal()])
    whole.kill()
    whole.wait()
    wait_for(lambda: not is_running(recipe))


def wait_for(found: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


def is_running(process: int) -> bool:
    """Is it there, and more than a name that nobody has asked for?"""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
