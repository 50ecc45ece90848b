"""``python -m torchopt_course.playground [OPTIMIZER ...] [--output playground.html]``."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torchopt_course

from .optimizers import PlaygroundError
from .page import OURS, page


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m torchopt_course.playground", description=__doc__)
    parser.add_argument(
        "optimizers",
        nargs="*",
        metavar="OPTIMIZER",
        help="a class of yours: its name, if a file of this folder has it, module:Class or "
        "path/to/file.py:Class; or one of ours, which then walks when the page opens",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("playground.html"), help="the file to write (%(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        text = page([find(name) for name in given.optimizers])
        given.output.write_text(text, encoding="utf-8")
    except (PlaygroundError, LookupError, ImportError, OSError) as error:
        said = error.args[0] if isinstance(error, LookupError) else error
        parser.exit(1, f"{parser.prog}: {said}\n")
    print(f"{given.output.resolve().as_uri()}: {len(text) / 1024:.0f} KB, opens in any browser")


def find(name: str) -> Any:
    """The class of a name such as ``Lion``, ``my_module:Lion``, ``my_file.py:Lion`` or ``Adam``.

    Raises:
        LookupError: there is none.
        ImportError: the module cannot be imported.
    """
    module_name, _, class_name = name.rpartition(":")
    if not module_name and class_name in OURS:
        return getattr(torchopt_course, class_name)
    if not module_name:
        places = [path.name for path in sorted(Path().glob("*.py")) if class_name in _classes(path)]
        if len(places) != 1:
            where = (
                f"in several files here ({', '.join(places)})"
                if places
                else "in no Python file of this folder"
            )
            raise LookupError(
                f"a class {name} is {where}, and none of ours ({', '.join(OURS)}): say module:{name} or "
                f"path/to/file.py:{name}"
            )
        module_name = places[0]
    module = _of_file(Path(module_name)) if module_name.endswith(".py") else _imported(module_name)
    if not hasattr(module, class_name):
        raise LookupError(f"{module_name} has no {class_name!r}")
    return getattr(module, class_name)


def _classes(path: Path) -> set[str]:
    """The classes that a file defines, without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def _imported(name: str) -> Any:
    sys.path.insert(0, "")  # the folder in which one works, as `python -m` has it
    return importlib.import_module(name)


def _of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise LookupError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pickle and dataclasses look there
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
