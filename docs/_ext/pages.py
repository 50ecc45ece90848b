"""What the pages have beyond Markdown: measured results, and the lecture's pages as notebooks to take along.

In a page, a line of its own ::

    {{ experiment: plateau, schedules }}

becomes what `docs/recipes.md` says in its section "plateau" (the command and the verdict) with the picture
"schedules", so a result is written down once, by `make gallery`. Of a claim that was borne out a page may
have those parts that say something: ``{{ experiment: derivatives, cost; about: forward mode }}``. A
section or picture that is not there is a warning, and so an error of the build.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
# Pages of the site that are files of the repository outside of docs/, and those that include some.
ELSEWHERE = {
    "ARCHITECTURE.md": "/explanation/architecture.md",
    "CONTRIBUTING.md": "/explanation/contributing.md",
    "benchmarks/results/autograd.md": "/reference/measured.md",
    "benchmarks/results/cpu.md": "/reference/measured.md",
    "benchmarks/results/cuda.md": "/reference/measured.md",
    "benchmarks/results/gradient_checks.md": "/reference/measured.md",
    "benchmarks/results/peers.md": "/reference/measured.md",
}
FOLDER = "_notebooks"
MARKER = re.compile(
    r"^\{\{ experiment: (?P<section>\w+)(?:, (?P<pictures>[\w, ]+))?(?:; about: (?P<about>[\w ]+))? \}\}$",
    re.MULTILINE,
)
VERDICT = re.compile(r'^"(?P<claim>.*)" was borne out by this run: (?P<found>.*)\.$', re.MULTILINE)
FILE = re.compile(r"^\{\{ file: (?P<path>\S+) \}\}$", re.MULTILINE)
TARGET = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
PLAYGROUND = re.compile(r"^!\[(?P<words>[^\]]*)\]\(images/playground\.png\)$", re.MULTILINE)
FRAME = r"""```{raw} html
<p><a href="_playground/playground.html">The playground on the whole screen</a></p>
<iframe class="playground" src="_playground/playground.html" title="\g<words>"></iframe>
```"""
IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<path>[^)\s]+)\)")
INSTALL = """\
# Where the package is missing, such as in Colab: upload the wheel beside this notebook, then run this.
import importlib.util

if importlib.util.find_spec("torchopt_course") is None:
    %pip install -q torchopt_course-*.whl matplotlib scikit-learn sympy"""
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?!https?:)[^)]+\)")


def is_notebook(docname: str) -> bool:
    return docname.startswith("lecture/") and docname != "lecture/index"


# -- measured results ---------------------------------------------------------------------------------------


def sections_of(recipes: str) -> dict[str, str]:
    """The sections of docs/recipes.md by name."""
    return {
        head: text
        for head, _, text in (part.partition("\n") for part in re.split(r"^## ", recipes, flags=re.M)[1:])
    }


def parts_about(head: str, about: str) -> str:
    """The verdict in the head of a section with those parts that have these words, if it is a yes to all.

    Raises:
        KeyError: no part of what was found has these words.
    """

    def chosen(verdict: re.Match[str]) -> str:
        claims, found = ([p for p in verdict[n].split("; ") if about in p] for n in ("claim", "found"))
        if not found:
            raise KeyError(f"nothing that was found says {about!r}: {verdict['found']}")
        if not claims:
            return f"In this run {'; '.join(found)}."
        claim = "; ".join(claims)
        return f'"{claim[0].upper()}{claim[1:]}" was borne out by this run: {"; ".join(found)}.'

    return VERDICT.sub(chosen, head)


def experiment(section: str, pictures: list[str], recipes: str, about: str = "") -> str:
    """The head of a section with some of its pictures, as Markdown of a page in docs/lecture.

    Raises:
        KeyError: there is no such section or picture, or nothing in it about that.
    """
    sections = sections_of(recipes)
    if section not in sections:
        raise KeyError(f"docs/recipes.md has no section {section!r}, but {', '.join(sections)}")
    text = sections[section]
    # The command and the verdict: everything up to the first picture or table.
    head = re.split(r"^(?:!\[|```)", text, maxsplit=1, flags=re.M)[0].strip()
    paths = {Path(found["path"]).stem: found["path"] for found in IMAGE.finditer(text)}
    lines = [parts_about(head, about) if about else head]
    for picture in pictures:
        if picture not in paths:
            raise KeyError(
                f"section {section!r} of docs/recipes.md has no picture {picture!r}, but {', '.join(paths)}"
            )
        lines.append(f"![{picture.replace('_', ' ')}, from the recipe {section}](../{paths[picture]})")
    lines.append(f"The whole table and all pictures: [{section}](../recipes.md#{section}).")
    return "\n\n".join(lines)


def put_in_files(app: Sphinx, docname: str, source: list[str]) -> None:
    """A file of the repository as a page, and links out of docs/ to where the site has their target.

    So one and the same link is right in the repository and on the site.
    """
    here = Path(app.srcdir) / Path(docname).parent

    def of_the_repository(match: re.Match[str]) -> str:
        text = (ROOT / match["path"]).read_text()
        app.env.note_dependency(str(ROOT / match["path"]), docname=docname)
        return TARGET.sub(lambda link: f"]({place(link['path'], ROOT)}{link['anchor'] or ''})", text)

    def place(path: str, folder: Path) -> str:
        target = (folder / path).resolve()
        if target.is_relative_to(ROOT) and str(target.relative_to(ROOT)) in ELSEWHERE:
            return ELSEWHERE[str(target.relative_to(ROOT))]
        if folder == here:
            return path
        # Absolute for Sphinx: from the folder of the sources.
        return "/" + os.path.relpath(target, app.srcdir)

    source[0] = TARGET.sub(lambda link: f"]({place(link['path'], here)}{link['anchor'] or ''})", source[0])
    source[0] = FILE.sub(of_the_repository, source[0])


def put_in_experiments(app: Sphinx, docname: str, source: list[str]) -> None:
    if not MARKER.search(source[0]):
        return
    app.env.note_dependency("recipes.md", docname=docname)
    recipes = (Path(app.srcdir) / "recipes.md").read_text()

    def found(match: re.Match[str]) -> str:
        pictures = [name.strip() for name in (match["pictures"] or "").split(",") if name.strip()]
        try:
            return experiment(match["section"], pictures, recipes, match["about"] or "")
        except KeyError as error:
            logger.warning("%s", error.args[0], location=docname, type="experiment")
            return ""

    source[0] = MARKER.sub(found, source[0])


# -- notebooks to take along --------------------------------------------------------------------------------


def offer_notebook(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """A line below the title, on the site only: in the notebook itself it would make no sense."""
    if is_notebook(page) and "body" in context:
        name = f"{Path(page).name}.ipynb"
        line = (
            f'<p class="take-along"><a download href="../{FOLDER}/{name}">This page as a notebook</a> '
            '(<a href="../howto/notebooks.html">how to run it</a>, on a laptop or in Colab)</p>'
        )
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{line}", 1)


def take_along(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Install first; pictures go inside, as attachments; of links to other pages their text is left."""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL, id="install"))
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        attachments: dict[str, dict[str, str]] = {}

        def attach(match: re.Match[str], attachments: dict[str, dict[str, str]] = attachments) -> str:
            path = folder / match["path"]
            kind = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}[path.suffix]
            attachments[path.name] = {kind: base64.b64encode(path.read_bytes()).decode()}
            return f"![{match['text']}](attachment:{path.name})"

        cell.source = LINK.sub(r"\g<text>", IMAGE.sub(attach, cell.source))
        if attachments:
            cell.attachments = attachments


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """The executed notebooks, one by one and together, and the wheel for where nothing is installed."""
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir) / FOLDER
    out.mkdir(exist_ok=True)
    for executed in sorted((Path(app.outdir).parent / "jupyter_execute" / "lecture").glob("*.ipynb")):
        notebook = nbformat.read(executed, as_version=4)
        take_along(notebook, Path(app.srcdir) / "lecture")
        nbformat.write(notebook, out / executed.name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(out / "torchopt-course-lecture.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*out.glob("*.ipynb"), *out.glob("*.whl")]):
            archive.write(path, path.name)


def place_playground(app: Sphinx, docname: str, source: list[str]) -> None:
    """Its page shows the playground instead of a picture of it."""
    if docname == "playground":
        source[0], count = PLAYGROUND.subn(FRAME, source[0])
        if count != 1:
            logger.warning("no picture to be replaced by the playground", location=docname, type="playground")


def write_playground(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    page = Path(app.outdir) / "_playground" / "playground.html"
    page.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torchopt_course.playground", "--output", str(page)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", put_in_experiments)
    app.connect("source-read", put_in_files)
    app.connect("source-read", place_playground)
    app.connect("html-page-context", offer_notebook)
    app.connect("build-finished", write_notebooks)
    app.connect("build-finished", write_playground)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
