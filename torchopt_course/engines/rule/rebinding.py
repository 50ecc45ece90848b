"""A function with other things behind the names that it reads, and so for the functions that it calls."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

from .reads import codes, content, is_of_a_library

Replacement = Callable[[str, Any], Any]


def rebound(function: FunctionType, replacement: Replacement) -> FunctionType:
    """The function as it would be if its globals, closures and builtins were replaced; itself if none is.

    Args:
        function: any function of Python's.
        replacement: ``replacement(name, value)`` is what is to stand behind the name: ``value`` itself, if it
            is not to be replaced.
    """
    return _rebound(function, replacement, {})


def _rebound(
    function: FunctionType, replacement: Replacement, done: dict[FunctionType, FunctionType]
) -> FunctionType:
    if function in done:
        return done[function]
    done[function] = function  # one that calls itself

    def new(name: str, value: Any) -> Any:
        if type(value) is FunctionType and not is_of_a_library(value):
            return _rebound(value, replacement, done)
        return replacement(name, value)

    known = {**vars(builtins), **function.__globals__}
    used = {name for code in codes(function.__code__) for name in code.co_names if name in known}
    names = {name: new(name, known[name]) for name in used}
    names = {name: value for name, value in names.items() if value is not known[name]}
    variables = function.__code__.co_freevars
    cells = function.__closure__ or ()
    closed = [new(name, content(cell)) for name, cell in zip(variables, cells, strict=True)]
    is_same = [value is content(cell) for value, cell in zip(closed, cells, strict=True)]
    if names or not all(is_same):
        closure = tuple(
            cell if same else CellType(value)
            for cell, same, value in zip(cells, is_same, closed, strict=True)
        )
        bound = FunctionType(
            function.__code__,
            {**function.__globals__, **names},
            function.__name__,
            function.__defaults__,
            closure,
        )
        bound.__kwdefaults__ = function.__kwdefaults__
        done[function] = bound
    return done[function]
