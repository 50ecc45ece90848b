"""Checkpoints that survive a kill at any instant, a full disk and a flipped bit.

A checkpoint is an ordinary file of `torch.save`, a zip archive. `torch.load` does not look at the checksums
in it and notices no more than one flipped bit in a hundred; `zipfile` does. It is serialised to memory,
written to a temporary file, flushed to the disk, and only then given its name; the one before it stays.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from recipes.common.command_line import first_line
from recipes.common.errors import CheckpointError
from recipes.common.folder import write_whole

KEPT = 2
NAME = "step-{:010d}.torchopt_course.pt"
PATTERN = f"step-{'[0-9]' * 10}.torchopt_course.pt"


class Checkpoints:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def by_step(self) -> dict[int, Path]:
        """The files, by the step after which each was made, oldest first."""
        return {int(path.name[5:15]): path for path in sorted(self.folder.glob(PATTERN))}

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write a checkpoint, all or nothing, and delete all but the newest two.

        `content` holds tensors, numbers, strings, None, lists and dicts; what `weights_only=True` loads.
        Raises `FolderError` if the disk is full or the folder is read-only; older files stay as they are.
        """
        path = self.folder / NAME.format(step)
        write_whole(path, serialised(content))
        for old in [*self.by_step().values()][:-KEPT]:
            old.unlink()
        return path

    def newest(self) -> dict[str, Any] | None:
        """The content of the newest valid checkpoint; None if there has never been one.

        A damaged file is named on stderr, kept under another name, and the one before it taken.
        Raises `CheckpointError` if there are files and none of them is valid.
        """
        paths = [*self.by_step().values()]
        damaged: list[Path] = []
        for path in reversed(paths):
            try:
                content = opened(path)
            except CheckpointError as error:
                print(f"{path}: {error}", file=sys.stderr)
                damaged.append(path)
                continue
            for broken in damaged:  # or it would count as one of the two that are kept
                os.replace(broken, broken.with_suffix(".damaged"))
            return content
        if paths:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is valid, so there is nothing to go on from; "
                "--fresh starts again from the beginning"
            )
        return None

    def clear(self) -> None:
        """Delete all checkpoints, also half-written and damaged ones."""
        for pattern in ("step-*.torchopt_course.pt", "step-*.draft", "step-*.damaged"):
            for path in self.folder.glob(pattern):
                path.unlink()


def serialised(content: dict[str, Any]) -> bytes:
    """The bytes of the file. To memory first: on a full disk `torch.save` itself says nothing."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def opened(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises `CheckpointError`, in one line, for anything that is not one."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})") from error
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            broken = archive.testzip()  # reads all, and compares with the checksums
    except Exception as error:  # a header that says anything can provoke anything
        raise CheckpointError("the file is cut off, damaged, or no checkpoint") from error
    if broken:
        raise CheckpointError(f"the file is damaged: {broken} in it has another checksum")
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile pickle provokes
        reason = first_line(error)
        raise CheckpointError(f"the file is not safe to load ({reason[:120]})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"the file holds a {type(content).__name__}, not a checkpoint")
    return content
