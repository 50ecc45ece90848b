# ruff: noqa: E501
"""What the package says of itself: built without torch.autograd, and its documentation runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from torchopt_course import autograd
from torchopt_course.autograd import PRIMITIVES
from torchopt_course.autograd.dispatch import TABLE

from ..helpers import ROOT

PACKAGE = Path(autograd.__file__).parent


def test_torch_supplies_kernels_and_never_gradients():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            words = []
            if isinstance(node, ast.Attribute):
                words = [ast.unparse(node), node.attr]
            elif isinstance(node, ast.ImportFrom):
                words = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                words = [alias.name for alias in node.names]
            found += [
                (path.name, w) for w in words if re.search(r"^torch\.(autograd|func)\b|^requires_grad_?$", w)
            ]
    # What torch itself has recorded is asked of torch: what it records itself, and users' Functions. To the .grad
    # of DistributedDataParallel's parameters, and where nodes have hooks, its engine adds what was found here.
    # Its hooks of several values are called here too, and its gradcheck may ask what was found here.
    asking = ("foreign.py", "functions.py", "accumulation.py", "graph_hooks.py", "packing.py", "gradcheck.py")
    found = [each for each in found if each[0] not in asking]
    # Everywhere else: whether a plain tensor requires a gradient, and answers for torch.autograd.grad.
    assert {word for _, word in found} <= {
        "requires_grad",
        "requires_grad_",
        "torch.autograd.grad",
        "torch.autograd",
    }
    assert {name for name, word in found if word.startswith("torch.")} <= {"backward.py"}


def imports(path: Path) -> set[Path]:
    """The files of the package that a file imports anywhere, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
            names = [folder.with_suffix(".py"), *(folder / f"{alias.name}.py" for alias in node.names)]
            found |= {name for name in names if name.is_file()}
    return found - {path}


def test_no_file_imports_one_that_imports_it():
    graph = {
        path: imports(path)
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "drawing.py")
    }
    while graph:  # take away, again and again, what imports nothing that is left
        free = [path for path, needed in graph.items() if not needed & graph.keys()]
        assert free, f"a circle of imports among {sorted(path.name for path in graph)}"
        for path in free:
            del graph[path]


def test_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    before, table = set(PRIMITIVES), dict(TABLE)
    try:
        for block in re.findall(
            r"```python\n(.*?)```", (ROOT / "docs" / "autograd.md").read_text(), re.DOTALL
        ):
            exec(block, names)
    finally:
        for name in set(PRIMITIVES) - before:
            del PRIMITIVES[name]
        TABLE.clear()
        TABLE.update(table)
    assert "dz/dx = y + cos(x)" in capsys.readouterr().out
    assert (tmp_path / "errors.png").exists()
