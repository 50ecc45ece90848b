"""Ctrl-C while a recipe still imports, or is about to end; and a signal that is ignored stays ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from recipes.common.command_line import plain_endings
from recipes.trainer.stopping import stop_requests

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SCRIPTS = sorted(path.name for path in RECIPES.glob("*.py") if path.stem not in ("__init__", "minimal"))
# What takes long is replaced: pressed while it is imported, and what Ctrl-C raises is lost, as in C++.
PRESSED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except BaseException:
    pass
raise SystemExit("not interrupted")
"""

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules in the place of the large ones."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("torch", "tyro"):
        (folder / f"{name}.py").write_text(PRESSED)
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_among_imports_is_one_line(script: str, shell: Shell, stubs: Path) -> None:
    end = shell(RECIPES / script, "--help", PYTHONPATH=str(stubs))
    assert (end.stderr, end.returncode) == (f"{script}: interrupted\n", 130)


def test_ctrl_c_while_the_command_line_is_read_is_one_line(shell: Shell, tmp_path: Path) -> None:
    """To read a long docstring takes a moment."""
    reads = "class conf:\n FlagCreatePairsOff = None\ndef cli(*_, **__):\n"
    (tmp_path / "tyro.py").write_text(reads + textwrap.indent(PRESSED, " "))
    end = shell(RECIPES / "gallery.py", PYTHONPATH=str(tmp_path))
    assert (end.stderr, end.returncode) == ("gallery.py: interrupted\n", 130)


def test_also_of_a_module_that_is_run_by_its_name(shell: Shell, stubs: Path) -> None:
    end = shell("-m", "recipes.zoo", PYTHONPATH=f"{stubs}{os.pathsep}{RECIPES.parent}")
    assert (end.stderr.splitlines()[-1], end.returncode) == ("-m: interrupted", 130)


def test_of_many_processes_one_speaks(shell: Shell, stubs: Path) -> None:
    end = shell(RECIPES / "train.py", PYTHONPATH=str(stubs), RANK="1")
    assert (end.stderr, end.returncode) == ("", 130)


@pytest.mark.parametrize("way", ["-c", "file"])
def test_nothing_changes_for_a_program_that_imports_recipes(way: str, shell: Shell, tmp_path: Path) -> None:
    code = "import recipes.common, signal; print(signal.getsignal(2) is signal.default_int_handler)"
    (tmp_path / "recipes_of_mine.py").write_text(code)
    words = ["-c", code] if way == "-c" else ["recipes_of_mine.py"]
    assert shell(*words, PYTHONPATH=str(RECIPES.parent)).stdout == "True\n"


def test_what_is_ignored_stays_ignored() -> None:
    """A shell starts what it runs in a script's background so, and Ctrl-C is for what is in front."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with plain_endings(), stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_recipe_in_the_background_of_a_script_is_not_stopped(shell: Shell, stubs: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(2, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    end = shell("-c", ignoring, sys.executable, RECIPES / "train.py", PYTHONPATH=str(stubs))
    assert end.stderr == "not interrupted\n"


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with plain_endings(), stop_requests():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
