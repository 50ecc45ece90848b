"""The site as `make docs` has built it, opened page by page in Chromium without a network."""

from __future__ import annotations

import html.parser
import json
import urllib.parse
import zipfile
from pathlib import Path

import pytest

from ..browser import Browser
from ..helpers import ROOT

SITE = ROOT / "docs" / "_build" / "html"
LECTURE = sorted(path.stem for path in (ROOT / "docs" / "lecture").glob("*.md") if path.stem != "index")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    """All pages of the site."""
    index = SITE / "index.html"
    if not index.exists():
        pytest.skip("no site here: make docs")
    built = (SITE / "searchindex.js").stat().st_mtime
    newer = [path for path in (ROOT / "docs").rglob("*.md") if path.stat().st_mtime > built]
    if newer:
        pytest.skip(f"{newer[0]} is newer than the site: make docs")
    return sorted(SITE.rglob("*.html"))


# What is wrong with the page that is open, as a list of words.
LOOK = """
const wrong = [];
for (const image of document.querySelectorAll("article img")) {
  if (!image.complete || image.naturalWidth === 0) wrong.push("no picture: " + image.src.slice(0, 200));
  if (!image.alt) wrong.push("a picture without words: " + image.src.slice(0, 200));
}
for (const formula of document.querySelectorAll("math")) {
  const box = formula.getBoundingClientRect();
  if (box.width < 3 || box.height < 3) wrong.push("a formula of no size: " + formula.textContent);
  if (!getComputedStyle(formula).fontFamily.includes("STIX")) wrong.push("a formula in another font");
}
const article = document.querySelector("article");
if (article && /\\\\(frac|beta|theta|left|begin)/.test(article.innerText.replace(/`[^`]*`/g, ""))) {
  const code = [...article.querySelectorAll("pre, code")].map(element => element.innerText).join("");
  if (!/\\\\(frac|beta|theta|left|begin)/.test(code)) wrong.push("a formula that stayed TeX");
}
for (const output of document.querySelectorAll(".cell_output")) {
  const words = output.innerText.trim();
  if (/^<(Figure|Axes)/.test(words)) wrong.push("words for a picture: " + words);
}
const width = document.documentElement.scrollWidth;
if (width > innerWidth + 1) wrong.push(`${width} pixels wide on a screen of ${innerWidth}`);
return wrong;
"""


@pytest.mark.parametrize(("width", "height"), [(1400, 1000), (390, 844)], ids=["desktop", "phone"])
def test_every_page_opens_without_a_complaint(
    width: int, height: int, pages: list[Path], browser: Browser
) -> None:
    size = {"width": width, "height": height, "phone": width < 500}
    wrong = {}
    for page in pages:
        complaints = [*browser.open(page.as_uri(), **size), *browser.run(LOOK)]
        if complaints:
            wrong[str(page.relative_to(SITE))] = complaints
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("name", LECTURE)
def test_a_page_of_the_lecture_is_whole(name: str, browser: Browser, pages: list[Path]) -> None:
    browser.open((SITE / "lecture" / f"{name}.html").as_uri())
    count = "return document.querySelectorAll('article {}').length;"
    assert browser.run(count.format("math[display=block]")) >= 1 or name in ("graph", "take_aways")
    assert browser.run(count.format(".cell_output img, .cell_output svg")) >= 1
    assert browser.run(count.format(".cell_output .highlight-python")) >= 1  # the code that is the formula
    headings = browser.run(
        "return [...document.querySelectorAll('article h2')].map(h => h.firstChild.textContent);"
    )
    assert headings[-2:] == ["Try", "What the real experiment said"]
    said = browser.run("return document.querySelector('#what-the-real-experiment-said').innerText;")
    assert "borne out by this run" in said or "In this run" in said


class Links(html.parser.HTMLParser):
    """Where a page's links lead, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None and tag != "base":
                self.links.add(value)
            elif name in ("id", "name") and value is not None:
                self.anchors.add(value)


def test_every_link_inside_the_site_leads_somewhere(pages: list[Path]) -> None:
    found = {page: Links(page) for page in pages}
    dead = []
    for page, here in found.items():
        for link in here.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme in ("http", "https", "data", "mailto", "javascript"):
                continue
            target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists() or (target in found and anchor not in found[target].anchors):
                dead.append(f"{page.relative_to(SITE)}: {link}")
    assert not dead, "\n".join(dead)


def test_nothing_is_loaded_from_elsewhere(pages: list[Path]) -> None:
    class Loads(html.parser.HTMLParser):
        found: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            if tag in ("script", "img", "iframe"):
                self.found.add(given.get("src") or "")
            elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
                self.found.add(given.get("href") or "")

    for page in pages:
        Loads().feed(page.read_text())
    assert not [url for url in Loads.found if urllib.parse.urlsplit(url).scheme in ("http", "https")]


@pytest.mark.parametrize("name", LECTURE)
def test_the_notebook_to_take_along_needs_nothing_beside_it(name: str, pages: list[Path]) -> None:
    notebook = json.loads((SITE / "_notebooks" / f"{name}.ipynb").read_text())
    first, *rest = notebook["cells"]
    assert "pip install" in "".join(first["source"])
    for cell in rest:
        text = "".join(cell["source"])
        assert "{{" not in text or cell["cell_type"] == "code"
        if cell["cell_type"] == "markdown":
            assert "```{" not in text
            assert text.count("attachment:") == len(cell.get("attachments", {}))
            assert "](../" not in text


def test_the_archive_holds_all_notebooks_and_the_wheel(pages: list[Path]) -> None:
    names = zipfile.ZipFile(SITE / "_notebooks" / "torchopt-course-lecture.zip").namelist()
    assert {name for name in names if name.endswith(".ipynb")} == {f"{name}.ipynb" for name in LECTURE}
    assert [name for name in names if name.endswith(".whl")]
