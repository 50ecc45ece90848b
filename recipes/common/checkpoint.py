"""Checkpoints that survive a kill at any instant, a full disk and a flipped bit.

A checkpoint is an ordinary file of `torch.save`, which `torch.load` can open, with its SHA-256 as last line:
`torch.load` itself notices no more than one flipped bit in a hundred. It is serialised to memory, written to
a temporary file, flushed to the disk, and only then given its name; the one before it stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

KEPT = 2
NAME = re.compile(r"step-(\d{10})\.torchopt_course\.pt")
SEAL = b"\nsha256 "
SEAL_LENGTH = len(SEAL) + 64 + 1


class CheckpointError(Exception):
    """A checkpoint could not be written, or none can be read."""


class Checkpoints:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(path for path in self.folder.glob("step-*.pt") if NAME.fullmatch(path.name))

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write a checkpoint, all or nothing, and delete all but the newest two.

        `content` holds tensors, numbers, strings, None, lists and dicts; what `weights_only=True` loads.
        Raises `CheckpointError` if the disk is full or the folder is read-only; older files stay as they are.
        """
        path = self.folder / f"step-{step:010d}.torchopt_course.pt"
        draft = path.with_suffix(".draft")
        try:
            write_to_disk(draft, sealed(content))
            os.replace(draft, path)
            flush_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise CheckpointError(
                f"cannot write {path}: {error.strerror}; the checkpoints before it are intact"
            ) from error
        for old in self.paths()[:-KEPT]:
            old.unlink()
        return path

    def newest(self) -> dict[str, Any] | None:
        """The content of the newest valid checkpoint; None if there has never been one.

        A damaged file is named on stderr, kept under another name, and the one before it taken.
        Raises `CheckpointError` if there are files and none of them is valid.
        """
        paths = self.paths()
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


def step_of(path: Path) -> int:
    """The step after which a checkpoint was made, by its name."""
    return int(NAME.fullmatch(path.name)[1])  # type: ignore[index]


def sealed(content: dict[str, Any]) -> bytes:
    """The bytes of the file: torch's own, and their digest."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    return payload + SEAL + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def opened(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises `CheckpointError`, in one line, for anything that is not one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})") from error
    payload, seal = data[:-SEAL_LENGTH], data[-SEAL_LENGTH:]
    if not data:
        raise CheckpointError("the file is empty")
    if not (seal.startswith(SEAL) and seal.endswith(b"\n")):
        raise CheckpointError("the file is cut off, or no checkpoint of these recipes")
    if hashlib.sha256(payload).hexdigest().encode() != seal[len(SEAL) : -1]:
        raise CheckpointError(
            "the file is damaged: its content does not have the SHA-256 it was written with"
        )
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile pickle provokes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"the file is not safe to load ({reason[:120]})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"the file holds a {type(content).__name__}, not a checkpoint")
    return content


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
