"""A function with other things behind the names that it reads, and so for the functions that it calls."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import torch

from .namespace import XP
from .reads import codes, content, is_of_a_library, undecorated

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
    if names or any(value is not content(cell) for value, cell in zip(closed, cells, strict=True)):
        done[function] = _with(function, names, closed)
    return done[function]


def with_torch(function: FunctionType) -> FunctionType:
    """The function with a rule's ``xp``, where it says that or torch, and so for the functions that it calls.

    Functions that numba has compiled are called as they were written.
    """
    return _with_torch(function, {})


def _with_torch(function: FunctionType, done: dict[FunctionType, FunctionType]) -> FunctionType:
    if function in done:
        return done[function]
    done[function] = function  # one that calls itself

    def helper(value: Any) -> Any:
        if value is torch:
            return XP
        plain = undecorated(value)
        is_own = type(plain) is FunctionType and not is_of_a_library(plain)
        return _with_torch(plain, done) if is_own else value

    used = {name for code in codes(function.__code__) for name in code.co_names}
    old = {name: value for name, value in function.__globals__.items() if name in used}
    new = {name: helper(value) for name, value in old.items()}
    if "xp" in used:
        new["xp"] = XP
    names = {name: value for name, value in new.items() if value is not old.get(name)}
    contents = [content(cell) for cell in function.__closure__ or ()]
    closed = [helper(value) for value in contents]
    if names or any(a is not b for a, b in zip(contents, closed, strict=True)):
        done[function] = _with(function, names, closed)
    return done[function]


def _with(function: FunctionType, names: Mapping[str, Any], closed: Sequence[Any]) -> FunctionType:
    """The function with other globals, and other things in its closure."""
    closure = tuple(
        cell if value is content(cell) else CellType(value)
        for cell, value in zip(function.__closure__ or (), closed, strict=True)
    )
    known = {**function.__globals__, **names}
    bound = FunctionType(function.__code__, known, function.__name__, function.__defaults__, closure)
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound
