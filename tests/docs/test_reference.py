"""The reference has every public name, and the lecture's pages name only experiments that were run."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from ..helpers import ROOT

DOCS = ROOT / "docs"
AREAS = {
    "torchopt_course": "optimizers",
    "torchopt_course.lr_scheduler": "lr_scheduler",
    "torchopt_course.autograd": "autograd",
    "torchopt_course.testing": "testing",
    "torchopt_course.transforms": "transforms",
    "torchopt_course.validation": "validation",
}
BLOCK = re.compile(r"\.\. autosummary::\n(?:   :.*\n)+\n((?:   \S+\n)+)")
DATA = re.compile(r"^\.\. py:data:: (\S+)$", re.MULTILINE)


def listed(page: str) -> list[str]:
    """The names that a page of docs/reference has pages of their own for."""
    text = (DOCS / "reference" / f"{page}.md").read_text()
    return [*(name for block in BLOCK.findall(text) for name in block.split()), *DATA.findall(text)]


def objects() -> dict[int, str]:
    """What has a page, by identity: some objects are public under two names."""
    return {
        id(getattr(importlib.import_module(area), name)): f"{area}.{name}"
        for area, page in AREAS.items()
        for name in listed(page)
    }


def is_torchs(thing: object) -> bool:
    home = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
    return home.split(".")[0] == "torch"


@pytest.mark.parametrize("area", AREAS)
def test_every_public_name_has_a_page(area: str) -> None:
    module = importlib.import_module(area)
    known = objects()
    missing = [
        name
        for name in module.__all__
        if not is_torchs(thing := getattr(module, name))
        and f"{area}.{name}" not in AREAS
        and id(thing) not in known
    ]
    assert not missing


@pytest.mark.parametrize(("area", "page"), AREAS.items())
def test_the_reference_has_public_names_only_and_each_once(area: str, page: str) -> None:
    names = listed(page)
    assert names
    assert set(names) <= set(importlib.import_module(area).__all__)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("area", "page"), AREAS.items())
def test_docstrings_are_read_as_they_are_meant(area: str, page: str) -> None:
    """Sphinx takes what stands before a colon for a type, and several attributes on a line for one."""
    for name in listed(page):
        words = inspect.getdoc(getattr(importlib.import_module(area), name)) or ""
        result = re.search(r"^Returns:\n +(.+)$", words, re.MULTILINE)
        assert not result or ": " not in result[1], name
        attributes = re.search(r"^Attributes:\n((?: +.+\n)+)", words, re.MULTILINE)
        assert not attributes or not re.search(r"^    \w+, .*:", attributes[1], re.MULTILINE), name


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    sys.modules.pop("pages", None)
    return importlib.import_module("pages")


RECIPES = """# All

## one

`python recipes/one.py`

"It is so" was borne out by this run: 3.

![curve of one](images/recipes/one/curve.png)

```text
table
```

## two

`python recipes/two.py`
"""


def test_an_experiment_is_what_recipes_md_says(pages) -> None:
    text = pages.experiment("one", ["curve"], RECIPES)
    assert text.startswith('`python recipes/one.py`\n\n"It is so" was borne out by this run: 3.\n\n![curve')
    assert "(../images/recipes/one/curve.png)" in text
    assert "table" not in text.split("The whole table")[0]


@pytest.mark.parametrize(("section", "pictures"), [("three", []), ("one", ["surface"])])
def test_an_experiment_that_was_not_run_is_an_error_that_names_those_that_were(
    pages, section, pictures
) -> None:
    with pytest.raises(KeyError, match=r"two|curve"):
        pages.experiment(section, pictures, RECIPES)


def test_a_page_may_have_the_parts_of_a_verdict_that_are_about_something(pages) -> None:
    recipes = (
        '## all\n\n`run`\n\n"red is hot; blue is cold" {} by this run: red had 90; blue had 5; both burnt.\n'
    )
    yes, no = recipes.format("was borne out"), recipes.format("was not borne out")
    assert pages.experiment("all", [], yes, "blue").split("\n\n")[1] == (
        '"Blue is cold" was borne out by this run: blue had 5.'
    )
    assert pages.experiment("all", [], yes, "both").split("\n\n")[1] == "In this run both burnt."
    assert pages.experiment("all", [], no, "blue") == pages.experiment(
        "all", [], no
    )  # which half it was is not said
    with pytest.raises(KeyError, match="green"):
        pages.experiment("all", [], yes, "green")


def test_every_page_of_the_lecture_asks_for_experiments_that_there_are(pages) -> None:
    recipes = (DOCS / "recipes.md").read_text()
    for page in sorted((DOCS / "lecture").glob("*.md")):
        markers = [*pages.MARKER.finditer(page.read_text())]
        assert bool(markers) == (page.stem != "index"), page
        for marker in markers:
            names = [name.strip() for name in (marker["pictures"] or "").split(",") if name.strip()]
            text = pages.experiment(marker["section"], names, recipes, marker["about"] or "")
            for path in pages.IMAGE.findall(text):
                assert (page.parent / path[1]).exists(), path


def test_every_table_of_the_benchmarks_is_on_the_site() -> None:
    shown = re.findall(
        r"\{include\} \.\./\.\./benchmarks/results/(\S+)", (DOCS / "reference" / "measured.md").read_text()
    )
    assert sorted(shown) == sorted(path.name for path in (ROOT / "benchmarks" / "results").glob("*.md"))


def test_links_of_the_readme_into_docs_hold() -> None:
    for link in re.findall(r"\]\((docs/[^)#]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text()):
        assert Path(ROOT / link).exists(), link
