"""A folder of a recipe: whose it is, what was asked of it, and files that are complete or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.common.errors import FolderError

if TYPE_CHECKING:
    from typing_extensions import Self

# How the recipes know their own files: nothing else in a folder is ever replaced or deleted.
WRITTEN_BY = "torchopt_course/recipes"
METRICS_FILE = "metrics.jsonl"
# Errors of a disk that is full, and of one that takes nothing.
FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_TAKEN = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
OR_FRESH = "choose another --logdir, or replace it with --fresh"


class Folder:
    """A recipe's folder, kept for one process; in a `with` statement it is closed however the recipe ends."""

    def __init__(self, path: Path, recipe: str) -> None:
        self.path, self.recipe = path, recipe
        self._open = contextlib.ExitStack()
        self.on_close = self._open.callback

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        with told_where(self.path):
            try:
                self._open.close()
            except Exception:
                if kind is None:  # else what ended the recipe is what the user must hear of
                    raise
            if isinstance(error, OSError) and error.errno in NOT_TAKEN:
                raise error

    def claim(self) -> dict[str, Any] | None:
        """Keep other processes out; the settings of the run that lies there, None if there is none.

        Raises `FolderError` if another process has the folder, if there are files of another program, or the
        outcome of another recipe.
        """
        earlier = self._earlier_settings()  # before a lock is laid into somebody else's folder
        if earlier is None or os.access(self.path, os.W_OK):  # else an outcome can be looked at, not changed
            self._open.enter_context(locked(self.path))
        return self._earlier_settings()

    def _earlier_settings(self) -> dict[str, Any] | None:
        config = read_json(self.path / "config.json")
        if config is None or config.get("written_by") != WRITTEN_BY:
            names = ("config.json", METRICS_FILE, "result.json")
            theirs = [name for name in names if (file := self.path / name).is_file() and file.stat().st_size]
            if theirs and (config is not None or not any(self.path.glob("step-*.torchopt_course.pt"))):
                raise FolderError(
                    f"{self.path} holds files of another program ({theirs[0]}); choose another --logdir"
                )
            return None
        if (other := config.get("recipe", self.recipe)) != self.recipe:
            raise FolderError(f"{self.path} holds what {other}.py has left; choose another --logdir")
        return config

    def refuse_other(
        self, earlier: dict[str, Any], settings: dict[str, Any], may_change: Container[str]
    ) -> None:
        """Raise `FolderError` with the first difference: no run is replaced without being asked."""
        for name, new in settings.items():
            if name not in may_change and (old := earlier.get(name)) != new:
                raise FolderError(
                    f"{self.path} holds a run with {name.replace('_', ' ')} {old}, not {new}; {OR_FRESH}"
                )

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.path / "config.json", {"written_by": WRITTEN_BY, "recipe": self.recipe, **settings})


def locked(path: Path) -> AbstractContextManager[object]:
    """Create the folder and keep other processes out of it. Also a killed process lets go of it."""
    from filelock import FileLock, Timeout  # torch depends on it

    with told_where(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(path / ".lock").acquire(timeout=0)
        except Timeout as error:
            raise FolderError(f"another process is using {path}; choose another --logdir") from error


def plain_settings(options: object) -> dict[str, Any]:
    """What a command line was read into, as JSON can say it."""
    plain: dict[str, Any] = json.loads(json.dumps(vars(options), default=str))
    return plain


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none, or something else. `FolderError` if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise FolderError(f"cannot read {path}: {error.strerror}") from error
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object that `read_json` reads."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either complete or not there, also if the machine stops in the middle.

    Raises `FolderError` if the disk does not take it.
    """
    draft = path.with_name(path.name + ".draft")
    with told_where(path.parent):
        try:
            write_to_disk(draft, content)
            os.replace(draft, path)
            flush(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def told_where(folder: Path) -> Iterator[None]:
    """Say which folder it was, if the disk does not take it, and what can be done."""
    try:
        yield
    except OSError as error:
        go_on = "make room, and the same command (without --fresh) goes on"
        cure = go_on if error.errno in FULL else "choose another folder"
        raise FolderError(f"cannot write to {folder}: {error.strerror or error}; {cure}") from error


def write_to_disk(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    path.write_bytes(content)
    flush(path)


def flush(path: Path) -> None:
    """Wait until the disk has what was written to a file, by whomever, or a folder's list of names."""
    if os.name != "posix" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
