"""The C functions that a compiled step calls, as an array of addresses: Python's, DLPack's and torch's.

Nothing here needs a compiler or a header: Python's C API is in :mod:`ctypes`, DLPack's exchange table hangs
at ``torch.Tensor``, the getter behind ``.grad`` is what its descriptor points to, and ``libtorch_cpu`` has
a stable C ABI (``torch/csrc/stable/c/shim.h``) with torch's own threads.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import frame as f
from .compiler import NoWord

_PYTHON = {
    f.LIST_ITEM: "PyList_GetItem",
    f.LIST_SIZE: "PyList_Size",
    f.LIST_APPEND: "PyList_Append",
    f.LIST_SET_SLICE: "PyList_SetSlice",
    f.DICT_ITEM: "PyDict_GetItem",
    f.DICT_NEXT: "PyDict_Next",
    f.TUPLE_ITEM: "PyTuple_GetItem",
    f.TUPLE_SIZE: "PyTuple_Size",
    f.AS_DOUBLE: "PyFloat_AsDouble",
    f.DECREF: "Py_DecRef",
    f.CALL: "PyObject_CallOneArg",
    f.SAVE_THREAD: "PyEval_SaveThread",
    f.RESTORE_THREAD: "PyEval_RestoreThread",
}
_OBJECTS: dict[int, Callable[[], object]] = {
    f.NONE: lambda: None,
    f.TRUE: lambda: True,
    f.A_TENSOR: lambda: torch.Tensor,
    f.A_PARAMETER: lambda: torch.nn.Parameter,
    f.A_LIST: lambda: list,
    f.A_DICT: lambda: dict,
    f.A_TUPLE: lambda: tuple,
    f.INCREMENT_VERSION: lambda: torch._C._increment_version,
}


@cache
def api() -> np.ndarray[Any, np.dtype[np.int64]]:
    """The addresses, in this process. What is missing is 0."""
    words = np.zeros(f.API_WORDS, dtype=np.int64)
    for word, name in _PYTHON.items():
        words[word] = _address(getattr(ctypes.pythonapi, name))
    for word, find in _OBJECTS.items():
        words[word] = id(find())
    words[f.PARALLEL_FOR], words[f.NUM_THREADS] = torch_threads()
    with suppress(_Unknown):
        words[f.GET_GRAD], words[f.GRAD_CLOSURE] = _getter("grad")
        words[f.IS_NEG], words[f.IS_INFERENCE] = _method("is_neg"), _method("is_inference")
        words[f.EXCHANGE] = exchange_api()  # last: it tells that all is there
    _apis.append(words)
    return words


_apis: list[np.ndarray[Any, np.dtype[np.int64]]] = []


def _leave_threads_alone() -> None:
    """A forked child has torch's pool, but not its threads: waiting for them would be for ever."""
    for words in _apis:
        words[f.PARALLEL_FOR] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_threads_alone)


def can_look() -> bool:
    """Whether compiled code can look into this torch's tensors."""
    return bool(api()[f.EXCHANGE])


class _Unknown(Exception):
    """Something is otherwise than is known here."""


@cache
def exchange_api() -> int:
    """The address of DLPack's ``dltensor_from_py_object_no_sync`` for torch tensors."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        raise _Unknown("this torch does not offer DLPack's C exchange API")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(capsule, b"dlpack_exchange_api")
    major = ctypes.c_uint32.from_address(table).value
    if major != 1:
        raise _Unknown(f"torch offers version {major} of DLPack's C exchange API; 1 is known here")
    # {version, previous table, allocate, from object, to object, dltensor from object, current stream}
    return int(_words_at(table, 7)[5])


@cache
def torch_threads() -> tuple[int, int]:
    """``torch_parallel_for`` and ``torch_get_num_threads`` of torch's stable C ABI; zeros where missing."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        if (folder / name).exists():
            library = ctypes.CDLL(str(folder / name))
            try:
                return _address(library.torch_parallel_for), _address(library.torch_get_num_threads)
            except AttributeError:
                break
    return 0, 0


def layout(tensor: torch.Tensor) -> list[int]:
    """Device, dtype, shape and strides as the words that a look compares.

    Raises:
        NoWord: DLPack knows no such device, as "meta".
    """
    view = (ctypes.c_int64 * f.VIEW_WORDS)()
    exchange = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(exchange_api())
    try:
        exchange(tensor, ctypes.addressof(view))
    except (BufferError, RuntimeError) as error:
        raise NoWord(f"DLPack cannot describe memory of device {tensor.device}") from error
    return [view[f.DEVICE], view[f.RANK_AND_DTYPE], *tensor.shape, *tensor.stride()]


def _getter(name: str) -> tuple[int, int]:
    """The C function behind an attribute of tensors, ``get(tensor, closure)``, and its closure."""
    # {refcount, type, owner, name, qualified name} {name, get, set, doc, closure}
    _insist_on_plain_objects()
    record = _words_at(_words_at(id(torch._C.TensorBase.__dict__[name]), 6)[5], 5)
    _insist_on(name, record[0])
    return record[1], record[4]


def _method(name: str) -> int:
    """The C function of a method of tensors without arguments, ``method(tensor, NULL)``."""
    # {refcount, type, owner, name, qualified name} {name, function, flags, doc}
    record = _words_at(_words_at(id(torch._C.TensorBase.__dict__[name]), 6)[5], 4)
    _insist_on(name, record[0])
    if record[2] & 0xFFFF != _NO_ARGUMENTS:
        raise _Unknown(f"Tensor.{name} is not called in the way that is known here")
    return int(record[1])


_NO_ARGUMENTS = 0x0004  # METH_NOARGS


def _insist_on_plain_objects() -> None:
    if object.__basicsize__ != 16 or _words_at(id(None), 2)[1] != id(type(None)):
        raise _Unknown("this Python lays its objects out otherwise than is known here")


def _insist_on(name: str, at: int) -> None:
    if ctypes.string_at(at) != name.encode():
        raise _Unknown(f"this Python describes Tensor.{name} otherwise than is known here")


def _words_at(address: int, count: int) -> Any:
    return (ctypes.c_int64 * count).from_address(address)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
