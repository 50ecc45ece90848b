"""Who imports whom, read from the source: a picture of a package's layers, and the circles if there are any.

``python -m docs.module_graph`` draws docs/images/modules.svg and docs/images/engines.svg anew. Nothing
is imported to find out: the imports stand in the syntax tree. Those inside of functions are not counted, for
they happen on first use.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from torchopt_course.autograd import drawing
from torchopt_course.autograd.layout import layered

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"modules.svg": "torchopt_course", "engines.svg": "torchopt_course.engines"}

Graph = dict[str, set[str]]  # from a module to those that it imports


def imports(package: str, *, types: bool) -> Graph:
    """The imports between the modules of a top-level package.

    Args:
        package: its name, a folder of this repository.
        types: count also what is imported for the type checker only, ``if TYPE_CHECKING``.
    """
    files = {_module_name(path): path for path in sorted((ROOT / package).rglob("*.py"))}
    graph: Graph = {}
    for name, path in files.items():
        parts = name.split(".")
        home = parts if path.name == "__init__.py" else parts[:-1]
        found = {
            target
            for node in _top_level_imports(ast.parse(path.read_text(encoding="utf-8")).body, types)
            for target in _targets(node, home, files)
        }
        graph[name] = found - {name}
    return graph


def circle(graph: Graph) -> list[str]:
    """Modules that import one another in a circle, the first one again at the end; none: an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def parts_of(package: str, graph: Graph) -> Graph:
    """The same graph, seen from farther off: the modules and folders directly in ``package``.

    Folders that import one another in a circle, though their modules do not, are opened.
    """
    inside = {name for name in graph if name.startswith(f"{package}.")}
    opened: set[str] = set()
    while True:
        part = {name: _closed_part(name, package, opened) for name in inside}
        seen: Graph = {part[name]: set() for name in sorted(inside)}
        for name in inside:
            seen[part[name]] |= {part[target] for target in graph[name] & inside} - {part[name]}
        folders = {name for name in circle(seen) if name not in opened and _is_folder(name)}
        if not folders:
            return seen
        opened |= folders


def _closed_part(module: str, package: str, opened: set[str]) -> str:
    """The outermost folder in ``package`` that a module lies in and that is not opened, or else itself."""
    parts = module.split(".")
    folders = (".".join(parts[:n]) for n in range(package.count(".") + 2, len(parts)))
    return next((folder for folder in folders if folder not in opened), module)


def layers(graph: Graph) -> list[list[str]]:
    """From those that import to those that are imported: each part stands above all that it imports."""
    rank: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        rank[name] = 1 + max((rank[target] for target in graph[name]), default=-1)
    return [
        sorted(name for name in rank if rank[name] == level) for level in range(max(rank.values()), -1, -1)
    ]


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _top_level_imports(body: list[ast.stmt], types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            if types or "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _top_level_imports(node.body, types)
            yield from _top_level_imports(node.orelse, types)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _top_level_imports([*node.body, *handlers, *node.orelse, *node.finalbody], types)
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from _top_level_imports(node.body, types)


def _targets(node: ast.Import | ast.ImportFrom, home: list[str], files: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        above = home[: len(home) - node.level + 1] if node.level else []
        source = ".".join([*above, *([node.module] if node.module else [])])
        # ``from package import module`` or ``from module import something``
        names = [
            f"{source}.{alias.name}" if f"{source}.{alias.name}" in files else source for alias in node.names
        ]
    yield from (name for name in names if name in files)


# -- the picture ---------------------------------------------------------------------------------------------

HEIGHT, LETTER = 30.0, 7.4  # of a box, and of a letter in it


def svg(package: str, graph: Graph) -> str:
    """The importing parts above, and an arrow for each import that no other way implies."""
    names = [name for row in layers(graph) for name in row]
    edges = [
        (name, target, "")
        for name, targets in sorted(_necessary(graph).items())
        for target in sorted(targets)
    ]
    sizes = {name: (LETTER * len(_label(name)) + 18, HEIGHT) for name in names}
    layout = layered(sizes, edges, low=frozenset())
    drawn = [f'<path d="{drawing.path(line)}" marker-end="url(#to)"/>' for line in layout.lines]
    for name, (x, y, width, height) in layout.boxes.items():
        drawn.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" rx="5"/><text x="{x:.0f}" y="{y + 5:.0f}">{_label(name)}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
        f'width="{layout.width:.0f}" '
        f'font-family="sans-serif" font-size="13" role="img">'
        f"<title>{package}: each part imports only what stands below it</title>\n"
        "<style>svg{background:#fff}path{fill:none;stroke:#9aa5b1}rect{fill:#eef3f8;stroke:#54708c}"
        "text{text-anchor:middle;fill:#1f2d3a}</style>\n"
        '<marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill:#9aa5b1"/></marker>\n'
    )
    return head + "\n".join(drawn) + "\n</svg>\n"


def _label(name: str) -> str:
    return name.rpartition(".")[2] + ("/" if _is_folder(name) else "")


def _is_folder(name: str) -> bool:
    return ROOT.joinpath(*name.split(".")).is_dir()


def _necessary(graph: Graph) -> Graph:
    """Without the imports that follow from others: a -> c where there are a -> b and b -> c."""
    below: Graph = {}
    for name in TopologicalSorter(graph).static_order():
        below[name] = graph[name].union(*(below[target] for target in graph[name]))
    return {
        name: targets - set().union(*(below[target] for target in targets)) for name, targets in graph.items()
    }


if __name__ == "__main__":
    for picture, package in PICTURES.items():
        graph = parts_of(package, imports("torchopt_course", types=False))
        (ROOT / "docs" / "images" / picture).write_text(svg(package, graph), encoding="utf-8")
        print(f"docs/images/{picture}")
