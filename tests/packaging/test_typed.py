"""The wheel, installed apart from this checkout: type checkers see the package's types from outside."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = [Path(__file__).with_name(name) for name in ("users_script.py", "every_name.py")]
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


def script_id(script: Path) -> str:
    return script.stem


@pytest.mark.parametrize("script", SCRIPTS, ids=script_id)
def test_users_scripts_run(script: Path, environment: Path) -> None:
    """Except for the lines that are wrong on purpose."""
    program = environment / "right.py"
    lines = script.read_text().splitlines()
    program.write_text("\n".join(line for line in lines if "# type: ignore" not in line))
    run(python(environment), "-I", program, cwd=environment)
    print_where = "import torchopt_course; print(torchopt_course.__file__)"
    where = run(python(environment), "-I", "-c", print_where, cwd=environment)
    assert Path(where.strip()).is_relative_to(environment)


@pytest.mark.parametrize("script", SCRIPTS, ids=script_id)
def test_mypy_strict(script: Path, environment: Path) -> None:
    pytest.importorskip("mypy")
    program = environment / script.name
    program.write_text(script.read_text())
    mypy = (sys.executable, "-I", "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "cache")
    run(*mypy, "--python-executable", python(environment), program, cwd=environment)


@pytest.mark.skipif(not find_spec("pyright"), reason="pyright is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=script_id)
def test_pyright(script: Path, environment: Path) -> None:
    program = environment / script.name
    program.write_text(script.read_text())
    (environment / "pyrightconfig.json").write_text('{"reportUnnecessaryTypeIgnoreComment": "error"}')
    run(sys.executable, "-I", "-m", "pyright", "--pythonpath", python(environment), program, cwd=environment)


@pytest.mark.parametrize(
    "module", ["", "autograd", "lr_scheduler", "playground", "testing", "transforms", "validation"]
)
def test_every_public_name_is_tried(module: str) -> None:
    """But for torch's own: of these two stand for all."""
    package = importlib.import_module(f"torchopt_course.{module}".rstrip("."))
    tree = ast.parse(SCRIPTS[1].read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    torchs = {*torch.optim.__all__, *torch.optim.lr_scheduler.__all__}
    ours = {
        name for name in package.__all__ if name not in torchs or "torchopt" in repr(getattr(package, name))
    }
    assert ours - used == set()
