"""What a rule reads besides its arguments: module globals, helpers, closures, attributes of modules.

What cannot change behind its name (numbers, functions) is remembered, so that a change of the name is
noticed before the next step: a notebook cell that was run again, ``config.K = 5``. What can change without
that (arrays, dictionaries, objects) makes a rule one that is run anew in each step, by torch.
"""

from __future__ import annotations

import builtins
import dis
import enum
from collections.abc import Callable, Hashable, Iterator
from functools import cache, partial
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.overrides import get_ignored_functions

Read = Callable[[], Any]
_MISSING = object()
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_NO_OPERATION = ("CACHE", "PUSH_NULL", "EXTENDED_ARG", "NOP")
_CONSTANTS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.generic,
    enum.Enum,
    torch.dtype,
    torch.device,
)
# Their functions say the same of the same arguments. Torch is listened to where it is called.
_PURE = ("builtins", "math", "cmath", "operator", "_operator", "torch", "numpy")
# But these depend on more than the values of their arguments, or on what is no value: a type, an attribute.
_IMPURE = {
    "eval", "exec", "globals", "locals", "vars", "open", "input", "__import__", "next", "id",
    "isinstance", "type", "getattr", "hasattr", "setattr", "is_tensor",
}  # fmt: skip


class Reads:
    """All that a function reads, and the functions that it calls.

    Args:
        function: a plain function.

    Attributes:
        changeable: what it reads that may change without notice, in words; ``""`` if nothing.
        watched: how to read each again, and what was read.
    """

    def __init__(self, function: FunctionType) -> None:
        self.changeable = ""
        self.watched: list[tuple[Read, Any]] = []
        self._seen: set[int] = set()
        self._function(function)

    def hold(self) -> bool:
        """Whether all that was read is what it was."""
        return all(read() is value for read, value in self.watched)

    def _function(self, function: FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            self.watched.append((partial(getattr, function, attribute), getattr(function, attribute)))
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._value("a default", default)
        names = function.__code__.co_freevars
        cells = dict(zip(names, function.__closure__ or (), strict=True))
        for instruction, name, attributes in _chains(function.__code__):
            if instruction == "IMPORT_NAME":
                if name.partition(".")[0] not in _PURE:
                    self._changes(f"imports {name}")
            elif instruction == "LOAD_GLOBAL":
                if name != "xp":  # a rule has its engine's
                    self._chain(name, self._global(function.__globals__, name), attributes)
            elif name in cells:
                self._chain(name, partial(content, cells[name]), attributes)
        for name in _written(function.__code__):
            self._changes(f"writes {name}")

    def _global(self, names: dict[str, Any], name: str) -> Read:
        """How to read a name, without a function of Python's: that is done before each step."""
        read = partial(names.get, name, _MISSING)
        if read() is not _MISSING:
            return read
        self.watched.append((read, _MISSING))
        return partial(vars(builtins).get, name, _MISSING)

    def _chain(self, name: str, read: Read, attributes: tuple[str, ...]) -> None:
        """A name and the attributes that follow it, such as ``config.model.K``."""
        value = read()
        if value is _MISSING:
            return  # Python says it better, when the rule is run
        self.watched.append((read, value))
        for attribute in attributes:
            if isinstance(value, torch.Tensor | np.ndarray | np.generic) or _is_constant(value):
                break
            name, read = f"{name}.{attribute}", partial(getattr, value, attribute, _MISSING)
            value = read()
            if value is _MISSING:
                return
            if read() is not value:
                self._changes(f"reads {name}, which is made anew each time")
                return
            self.watched.append((read, value))
        self._value(name, value)

    def _value(self, name: str, value: Any) -> None:
        value = undecorated(value)
        if isinstance(value, FunctionType) and not is_of_a_library(value):
            self._function(value)
        elif is_of_a_library(value) and (getattr(value, "__name__", "") in _IMPURE or _is_unheard(value)):
            self._changes(f"calls {name}()")
        elif not _is_constant(value) and not is_of_a_library(value):
            self._changes(f"reads {name} (a {type(value).__name__}), which may change at any time")

    def _changes(self, how: str) -> None:
        self.changeable = self.changeable or how


@cache
def _unheard() -> frozenset[Any]:
    return frozenset(get_ignored_functions())


def _is_unheard(value: Any) -> bool:
    """A function of torch that no listener hears of: most ask how torch is set at present."""
    return isinstance(value, Hashable) and value in _unheard()


def undecorated(value: Any) -> Any:
    """The function as it was written, if numba has compiled it: a rule calls it with more than numbers."""
    return (
        value.py_func if type(value).__module__.startswith("numba.") and hasattr(value, "py_func") else value
    )


def codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def _chains(code: CodeType) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What a function's code reads by name: the instruction, the name, the attributes that follow it."""
    for part in codes(code):
        chain: list[str] = []
        start = ""
        for instruction in dis.get_instructions(part):
            if instruction.opname in _NO_OPERATION:
                continue
            if chain and instruction.opname in _ATTRIBUTES:
                chain.append(instruction.argval)
                continue
            if chain:
                yield start, chain[0], tuple(chain[1:])
            is_start = instruction.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "IMPORT_NAME")
            start, chain = (instruction.opname, [instruction.argval]) if is_start else ("", [])


def _written(code: CodeType) -> Iterator[str]:
    """What a function's code writes that is not its own."""
    for part in codes(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname in ("STORE_GLOBAL", "STORE_ATTR") or (
                instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars
            ):
                yield instruction.argval


def content(cell: CellType) -> Any:
    """What a cell of a closure holds."""
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_constant, value))
    return isinstance(value, _CONSTANTS)


def is_of_a_library(value: Any) -> bool:
    """A function or type that gives the same for the same arguments, whatever else has happened."""
    owner = getattr(value, "__self__", None)
    if not callable(value) or not (owner is None or isinstance(owner, ModuleType | type)):
        return False  # a method of some object, such as random.random
    if isinstance(value, FunctionType):
        home = value.__globals__.get("__name__") or ""
    else:
        home = (
            getattr(value, "__module__", None) or getattr(owner, "__module__", None) or type(value).__module__
        )
    is_pure = home.partition(".")[0] in _PURE and not home.startswith("numpy.random")
    return is_pure or home == f"{__package__}.namespace"  # what `xp` has besides torch, whatever it is called
