"""What errors of a user's functions are told to be about: values, and where they came from."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Mapping
from typing import Any


def say_where(error: Exception, where: str) -> None:
    """Begin the message of an error of a user's function with what it came from."""
    if error.args and isinstance(error.args[0], str):
        error.args = (f"{where}: {error.args[0]}", *error.args[1:])
    else:  # as C's overflow, which has a number first
        error.args = (f"{where}: {error}",)


def line_of(error: Exception) -> str:
    """The line of a user's function that an error came from, as text that goes behind its name, if known."""
    line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if not frame.f_globals.get("__name__", "").startswith(_NOT_THE_USERS):
            line = linecache.getline(frame.f_code.co_filename, number).strip().rstrip(",")
    return f", in `{line}`" if line else ""


_OURS = (f"torchopt_course.{part}" for part in ("engines.", "declared", "transforms.composition"))
_NOT_THE_USERS = ("torch.", "numpy.", *_OURS)


def said(values: Mapping[str, Any]) -> str:
    """Values by name, as they would be given to a function."""
    texts = {name: repr(value) for name, value in values.items()}
    return ", ".join(
        f"{name}={text}" if len(text) <= 40 else f"{name}=<{type(values[name]).__name__}>"
        for name, text in texts.items()
    )


def kind(value: object) -> str:
    """A value and its type, for error messages."""
    if value is None:
        return "None"
    text = repr(value)
    return f"a {type(value).__name__}" + (f", {text}" if len(text) <= 40 else "")
