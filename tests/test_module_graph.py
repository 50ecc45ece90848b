"""Arrows between modules point one way: no two of them import one another, not even through others."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import module_graph
from docs.module_graph import circle, imports, layers, parts_of


@pytest.mark.parametrize("package", ["torchopt_course", "benchmarks"])
def test_no_circles(package: str) -> None:
    graph = imports(package, types=True)
    assert len(graph) > 10
    assert circle(graph) == []


def test_layers_of_the_package() -> None:
    rows = layers(parts_of("torchopt_course", imports("torchopt_course", types=False)))
    level = {name.rpartition(".")[2]: n for n, row in enumerate(rows) for name in row}
    assert level["adamw"] < level["adam"] < level["optimizer"] < level["validation"] < level["engines"]


def test_autograd_and_engines_know_nothing_of_what_stands_above_them() -> None:
    graph = imports("torchopt_course", types=True)
    for folder in ("autograd", "engines"):
        own = f"torchopt_course.{folder}"
        for name in (name for name in graph if name.startswith(own)):
            assert all(target.startswith(own) for target in graph[name]), name


@pytest.fixture
def small_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "small" / "deep"
    folder.mkdir(parents=True)
    for name, text in {
        "__init__": "from . import a",
        "a": "from .deep.b import f",
        "deep/__init__": "",
        "deep/b": "def f():\n    from .. import a",
        "deep/c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import small.d\n",
        "d": "try:\n    from small.deep import c\nexcept ImportError:\n    pass\n",
    }.items():
        (tmp_path / "small" / f"{name}.py").write_text(text)
    monkeypatch.setattr(module_graph, "ROOT", tmp_path)
    return tmp_path / "small"


def test_what_counts_as_an_import(small_package: Path) -> None:
    assert imports("small", types=False) == {
        "small": {"small.a"},
        "small.a": {"small.deep.b"},
        "small.d": {"small.deep.c"},
        "small.deep": set(),
        "small.deep.b": set(),  # on first use
        "small.deep.c": set(),
    }
    assert circle(imports("small", types=False)) == []


def test_circles_are_found(small_package: Path) -> None:
    assert set(circle(imports("small", types=True))) == {"small.d", "small.deep.c"}
    (small_package / "deep" / "b.py").write_text("from .. import a")
    assert set(circle(imports("small", types=False))) == {"small.a", "small.deep.b"}


def test_folder_in_a_circle_is_opened(small_package: Path) -> None:
    graph = imports("small", types=False)
    assert parts_of("small", graph) == {
        "small.a": {"small.deep"},
        "small.d": {"small.deep"},
        "small.deep": set(),
    }
    graph["small.deep.b"] = {"small.d"}
    assert parts_of("small", graph)["small.deep.b"] == {"small.d"}
    assert circle(parts_of("small", graph)) == []
