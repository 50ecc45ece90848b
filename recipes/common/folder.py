"""A folder of a recipe: whose it is, what was asked of it, and files that are complete or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from recipes.common.errors import FolderError

# How the recipes know their own files: nothing else in a folder is ever replaced or deleted.
WRITTEN_BY = "torchopt_course/recipes"
METRICS_FILE = "metrics.jsonl"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Create the folder and keep other processes out of it. Also a killed process lets go of it."""
    from filelock import FileLock, Timeout  # torch depends on it

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"another process is using {path}; choose another --logdir") from error
    except OSError as error:
        what = "write to" if path.is_dir() else "create"
        reason = f"cannot {what} the folder {path}: {error.strerror or error}"
        raise FolderError(f"{reason}; choose another --logdir") from error
    try:
        yield
    finally:
        lock.release()


def earlier_settings(path: Path, recipe: str) -> dict[str, Any] | None:
    """The settings of the run that lies in the folder; None if there is none.

    Raises `FolderError` if there are files of another program, or the outcome of another recipe.
    """
    config = read_json(path / "config.json")
    if config is None or config.get("written_by") != WRITTEN_BY:
        theirs = [name for name in ("config.json", METRICS_FILE, "result.json") if has_content(path / name)]
        if theirs and (config is not None or not any(path.glob("step-*.torchopt_course.pt"))):
            raise FolderError(f"{path} holds files of another program ({theirs[0]}); choose another --logdir")
        return None
    if config.get("recipe", recipe) != recipe:
        raise FolderError(f"{path} holds what {config['recipe']}.py has left; choose another --logdir")
    return config


def refuse_other_settings(
    path: Path, earlier: dict[str, Any], settings: dict[str, Any], may_change: Container[str] = ()
) -> None:
    """Raise `FolderError` with the first difference: a run is not replaced by another without being asked."""
    for name, new in settings.items():
        if name not in may_change and (old := earlier.get(name)) != new:
            raise FolderError(
                f"{path} holds a run with {name.replace('_', ' ')} {old}, not {new}; "
                "choose another --logdir, or replace it with --fresh"
            )


def has_content(path: Path) -> bool:
    """Is there a file, and something in it?"""
    return path.is_file() and path.stat().st_size > 0


def plain_settings(options: object) -> dict[str, Any]:
    """What a command line was read into, as JSON can say it."""
    plain: dict[type, Any] = {type(Path()): str, tuple: list}
    return {name: plain.get(type(value), lambda v: v)(value) for name, value in vars(options).items()}


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object that `read_json` reads. Raises `FolderError` if the disk does not take it."""
    with told_where(path.parent):
        write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either complete or not there, also if the machine stops in the middle."""
    draft = path.with_name(path.name + ".draft")
    try:
        write_to_disk(draft, content)
        os.replace(draft, path)
        flush_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def told_where(folder: Path, consequence: str = "") -> Iterator[None]:
    """Say which folder it was, if the disk does not take it, and what that means for what lies there."""
    try:
        yield
    except OSError as error:
        raise FolderError(f"cannot write to {folder}: {error.strerror or error}{consequence}") from error


def flush_file(path: Path) -> None:
    """Wait until the disk has what was written to a file, by whomever."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_to_disk(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the disk has a folder's list of names; where folders can be opened, so not on Windows."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
