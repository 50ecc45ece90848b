"""The compiled loop with which a survey looks at every tensor of a batch, see :mod:`.survey`."""

from __future__ import annotations

import ctypes
import pkgutil
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from .compiler import CompilationError, NativeFunction, native

HOLDS, CHANGED, GRADIENT_LAYOUT = 0, 1, 2  # what a survey can find

# Words of the frame, the array through which a survey and its caller talk.
VERDICT, SAME_AGE, PRESENT, COUNT, STATES, COLUMNS, AGE_BITS = range(7)
EXPECTED, NAMES, TABLE, AGES, ABSENT, VIEW, STEP_LAYOUT = range(7, 14)
# Words of one row of `expected`; the ids of the state tensors follow, then that of the step.
POSITION, PARAM, STATE_POSITION, LAYOUT, FIRST_STATE = range(5)
# DLPack's DLTensor as 64-bit words: data, device, ndim and dtype, shape, strides, byte offset.
DATA, DEVICE, KIND, SHAPE, STRIDES, OFFSET = range(6)
VIEW_WORDS = 6


def layout(tensor: Tensor) -> list[int]:
    """Device, dtype, shape and strides as the words that a survey compares."""
    view = (ctypes.c_int64 * VIEW_WORDS)()
    exchange = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(_exchange_api())
    exchange(tensor, ctypes.addressof(view))
    return [view[DEVICE], view[KIND], *tensor.shape, *tensor.stride()]


@cache
def _exchange_api() -> int:
    """The address of DLPack's ``dltensor_from_py_object_no_sync`` for torch tensors.

    Raises:
        CompilationError: this torch has no such table, or a newer major version of it.
    """
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        raise CompilationError("this torch does not offer DLPack's C exchange API")
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(capsule, b"dlpack_exchange_api")
    major = ctypes.c_uint32.from_address(table).value
    if major != 1:
        raise CompilationError(f"torch offers version {major} of DLPack's C exchange API; 1 is known here")
    # {version, previous table, allocate, from object, to object, dltensor from object, current stream}
    return (ctypes.c_int64 * 7).from_address(table)[5]


@cache
def compiled_look() -> NativeFunction:
    addresses = [
        _exchange_api(),
        *(
            ctypes.cast(function, ctypes.c_void_p).value
            for function in (
                ctypes.pythonapi.PyList_GetItem,
                ctypes.pythonapi.PyList_Append,
                ctypes.pythonapi.PyDict_GetItem,
            )
        ),
        id(None),  # it lies elsewhere in each process
    ]
    source = repr(pkgutil.get_data(__package__, "look.py"))
    look = native("look", source, _build_look, 6 + len(addresses), holds_gil=True)
    return partial(look, *addresses)


def _build_look() -> Callable[..., Any]:
    """The loop itself, for the compiler. All its arguments are addresses."""
    import numba

    from .intrinsics import call2, pointer_to

    words, shorts = pointer_to(numba.int64), pointer_to(numba.float32)
    longs = pointer_to(numba.float64)

    @numba.njit(inline="always")
    def same_shape(view: Any, layout: Any) -> Any:
        if view[DEVICE] != layout[0] or view[KIND] != layout[1]:
            return False
        shape = words(view[SHAPE])
        differ = False
        for d in range(view[KIND] & 0xFFFFFFFF):
            differ |= shape[d] != layout[2 + d]
        return not differ

    @numba.njit(inline="always")
    def same_strides(view: Any, layout: Any) -> Any:
        """Equal where it matters: along dimensions of more than one element, if there are elements."""
        n = layout[1] & 0xFFFFFFFF
        strides = words(view[STRIDES])
        differ = False
        for d in range(n):
            if layout[2 + d] == 0:
                return True
            differ |= layout[2 + d] != 1 and strides[d] != layout[2 + n + d]
        return not differ

    @numba.njit
    def memory(exchange: Any, tensor: Any, view_at: Any, layout: Any) -> Any:
        """The tensor's address; -1 if it is not as planned, -2 if only its strides are not."""
        view = words(view_at)
        if call2(exchange, tensor, view_at) & 0xFFFFFFFF != 0 or not same_shape(view, layout):
            return -1
        if not same_strides(view, layout):
            return -2
        empty = False
        for d in range(view[KIND] & 0xFFFFFFFF):
            empty |= layout[2 + d] == 0
        if view[DATA] == 0 and not empty:
            return -1
        return view[DATA] + view[OFFSET]

    def look(
        exchange: Any,
        list_item: Any,
        list_append: Any,
        dict_item: Any,
        none: Any,
        frame_at: Any,
        params: Any,
        grads: Any,
        keys: Any,
        states: Any,
        written: Any,
    ) -> Any:
        frame = words(frame_at)
        frame[VERDICT] = CHANGED
        frame[SAME_AGE] = 1
        n_states = frame[STATES]
        columns, age_bits = frame[COLUMNS], frame[AGE_BITS]
        names, ages, view_at = words(frame[NAMES]), longs(frame[AGES]), frame[VIEW]
        absent, scalar = words(frame[ABSENT]), words(frame[STEP_LAYOUT])
        verdict = HOLDS
        present, age = 0, 0.0
        for i in range(frame[COUNT]):
            row = words(frame[EXPECTED] + 8 * i * (FIRST_STATE + columns))
            addresses = words(frame[TABLE] + 8 * i * (2 + columns))
            planned = words(row[LAYOUT])
            grad = call2(list_item, grads, row[POSITION])
            absent[i] = grad == none
            if absent[i]:
                continue
            if call2(list_item, params, row[POSITION]) != row[PARAM]:
                return
            own = 0
            if columns:
                if call2(list_item, keys, row[STATE_POSITION]) != row[PARAM]:
                    return
                own = call2(list_item, states, row[STATE_POSITION])
            addresses[0] = memory(exchange, row[PARAM], view_at, planned)
            if addresses[0] < 0:
                return
            call2(list_append, written, row[PARAM])
            addresses[1] = memory(exchange, grad, view_at, planned)
            if addresses[1] == -1:
                return
            if addresses[1] == -2:
                verdict = GRADIENT_LAYOUT
            for s in range(columns):
                tensor = call2(dict_item, own, names[s])
                if tensor != row[FIRST_STATE + s]:
                    return
                if s < n_states:
                    addresses[2 + s] = memory(exchange, tensor, view_at, planned)
                else:
                    addresses[2 + s] = memory(exchange, tensor, view_at, scalar)
                if addresses[2 + s] < 0:
                    return
                call2(list_append, written, tensor)
            if age_bits == 32:
                ages[i] = shorts(addresses[2 + n_states])[0]
            elif age_bits == 64:
                ages[i] = longs(addresses[2 + n_states])[0]
            if present == 0:
                age = ages[i]
            elif ages[i] != age:
                frame[SAME_AGE] = 0
            present += 1
        frame[PRESENT] = present
        frame[VERDICT] = verdict

    return look
