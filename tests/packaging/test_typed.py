"""The wheel, installed apart from this checkout: type checkers see the package's types from outside."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("users_script.py")
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the wheel and, by a .pth file, all that is installed here, but not the checkout itself."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("packaging")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    # -I: without PYTHONPATH, by which this checkout may be importable
    pip = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--target", site, wheel, cwd=folder)
    (site / "others.pth").write_text(f"{here}\n")
    return folder


def python(environment: Path) -> Path:
    return environment / "env" / "bin" / "python"


def test_users_script_runs(environment: Path) -> None:
    """Except for the two lines that are wrong on purpose."""
    lines = [line for line in SCRIPT.read_text().splitlines() if 'lr="fast"' not in line]
    program = environment / "right.py"
    program.write_text("\n".join(line for line in lines if "learning_rate" not in line))
    run(python(environment), "-I", program, cwd=environment)
    print_where = "import torchopt_course; print(torchopt_course.__file__)"
    where = run(python(environment), "-I", "-c", print_where, cwd=environment)
    assert Path(where.strip()).is_relative_to(environment)


def test_mypy_strict(environment: Path) -> None:
    pytest.importorskip("mypy")
    program = environment / "users_script.py"
    program.write_text(SCRIPT.read_text())
    mypy = (sys.executable, "-I", "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "cache")
    run(*mypy, "--python-executable", python(environment), program, cwd=environment)


@pytest.mark.skipif(not find_spec("pyright"), reason="pyright is not installed")
def test_pyright(environment: Path) -> None:
    program = environment / "users_script.py"
    program.write_text(SCRIPT.read_text())
    (environment / "pyrightconfig.json").write_text('{"reportUnnecessaryTypeIgnoreComment": "error"}')
    run(sys.executable, "-I", "-m", "pyright", "--pythonpath", python(environment), program, cwd=environment)
