"""How many lines of code a class or function takes, with what else of its file it uses."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def lines_of(definition: Any) -> int:
    """Lines of a class or function and of what its file defines for it, by whatever way it uses that.

    Without imports, docstrings, comments and blank lines.
    """
    known = _definitions(definition)
    used = waiting = [definition.__name__]
    while waiting:
        names = {node.id for name in waiting for node in ast.walk(known[name]) if isinstance(node, ast.Name)}
        waiting = sorted(names & known.keys() - set(used))
        used = used + waiting
    return sum(len(_code(definition, _without_docstrings(known[name]))) for name in used)


def lines_of_body(cls: type[Any], *methods: str) -> int:
    """Lines of the body of the first of these methods that a class has."""
    written = _definitions(cls)[cls.__name__]
    assert isinstance(written, ast.ClassDef)
    bodies = {node.name: node.body for node in written.body if isinstance(node, ast.FunctionDef)}
    body = next(bodies[name] for name in methods if name in bodies)
    return len(_code(cls, _span(body[0], body[-1])))


def _definitions(definition: Any) -> dict[str, ast.stmt]:
    """What its file defines, by name."""
    known: dict[str, ast.stmt] = {}
    for node in ast.parse(_text(definition)).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            known[node.name] = node
        elif isinstance(node, ast.Assign):
            known |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return known


def _without_docstrings(node: ast.stmt) -> Iterator[int]:
    documented = [each for each in ast.walk(node) if isinstance(each, (ast.ClassDef, ast.FunctionDef))]
    texts = [each.body[0] for each in documented if ast.get_docstring(each) is not None]
    left_out = {line for text in texts for line in _span(text, text)}
    first = min([node, *getattr(node, "decorator_list", ())], key=lambda each: each.lineno)
    return (line for line in _span(first, node) if line not in left_out)


def _span(first: Any, last: Any) -> range:
    return range(first.lineno, last.end_lineno + 1)


def _code(definition: Any, numbers: Iterable[int]) -> list[str]:
    """Those of the lines of its file in which there is code."""
    lines = _text(definition).splitlines()
    texts = (lines[number - 1].strip() for number in numbers)
    return [text for text in texts if text and not text.startswith("#")]


def _text(definition: Any) -> str:
    return Path(inspect.getfile(definition)).read_text(encoding="utf-8")
