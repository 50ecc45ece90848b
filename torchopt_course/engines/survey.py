"""A look at every tensor of a batch before every step: is all still as it was when the batch was planned?

A fused step writes through addresses, so it must know that each address is still right. Between two steps
anything can have happened: ``p.data = ...``, ``module.to(...)``, ``load_state_dict``, a state tensor
replaced, a gradient of another layout. Asking each tensor from Python costs more than the update itself.
This is the same set of questions in one compiled loop:

- has parameter i a gradient now? If not, it is left out of this step and nothing else is asked of it;
- is item i of ``group["params"]`` still this parameter, and does its state still hold these tensors?
- have parameter, gradient and states the device, dtype, shape and strides that were planned for?

Python's C API answers the first two. The third is what DLPack's C exchange table is for (DLPack 1.3,
``torch.Tensor.__dlpack_c_exchange_api__``): address, dtype, shape and strides of a tensor without a single
Python object. Along the way the loop writes down the addresses for the kernel, the steps taken so far and
which tensors the step is going to write to.

Nothing here keeps a tensor of the user's alive: tensors are known by their ids. When a state is gone a weak
reference tells it, before the id comes to mean something else; a new parameter under an old one's id has no
states, or else all of those that were planned for.
"""

from __future__ import annotations

import ctypes
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiler import CompilationError, NativeFunction, native
from .same_tensors import SameTensors

HOLDS, CHANGED, GRADIENT_LAYOUT = 0, 1, 2  # what a survey can find

# Words of the frame, the array through which a survey and its caller talk.
_VERDICT, _SAME_AGE, _PRESENT, _COUNT, _STATES, _COLUMNS, _AGE_BITS = range(7)
_EXPECTED, _NAMES, _TABLE, _AGES, _ABSENT, _VIEW, _STEP_LAYOUT = range(7, 14)
# Words of one row of `expected`; the ids of the state tensors follow, then that of the step.
_POSITION, _PARAM, _STATE_POSITION, _LAYOUT, _FIRST_STATE = range(5)
# DLPack's DLTensor as 64-bit words: data, device, ndim and dtype, shape, strides, byte offset.
_DATA, _DEVICE, _KIND, _SHAPE, _STRIDES, _OFFSET = range(6)
_VIEW_WORDS = 6


class Survey:
    """The survey of one batch: tensors of one dtype in one parameter group.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters, contiguous in memory in some order of their dimensions.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes.
        counts_steps: whether the states also hold a ``"step"`` (0-d, float32 or float64, all on one device).

    Attributes:
        table: addresses, one row a parameter: p, g, states, and the step where there is one.
        ages: the steps that each parameter has taken, as its ``"step"`` on the CPU says. Where steps are
            not counted the caller keeps them here; steps on another device are not read.
        absent: not zero for each parameter that has no gradient in the coming step; in its row of the
            table nothing can be relied on.
        written: all that the coming step writes to. The caller empties it.
    """

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        *,
        counts_steps: bool,
    ) -> None:
        self._look = _compiled_look()
        self._positions = positions
        self._columns = columns = (*names, "step") if counts_steps else names
        self._names = np.array([id(name) for name in columns], dtype=np.int64)
        self.table = np.zeros((len(params), 2 + len(columns)), dtype=np.int64)
        self.ages = np.ones(len(params))
        self.absent = np.zeros(len(params), dtype=np.int64)
        self.written: list[Tensor] = []
        self._view = np.zeros(_VIEW_WORDS, dtype=np.int64)

        layouts: list[int] = []
        self._expected = np.zeros((len(params), _FIRST_STATE + len(columns)), dtype=np.int64)
        for row, position, param in zip(self._expected, positions, params, strict=True):
            row[_POSITION], row[_LAYOUT] = position, len(layouts)
            layouts += layout(param)
        self._layouts = np.array(layouts, dtype=np.int64)
        self._expected[:, _LAYOUT] = self._layouts.ctypes.data + 8 * self._expected[:, _LAYOUT]
        self.expect(params, state)

        step = state[params[0]]["step"] if counts_steps else None
        age_bits = torch.finfo(step.dtype).bits if step is not None and step.device.type == "cpu" else 0
        self._step_layout = np.array([] if step is None else layout(step), dtype=np.int64)
        self._frame = np.zeros(1 + _STEP_LAYOUT, dtype=np.int64)
        self._frame[[_COUNT, _STATES, _COLUMNS, _AGE_BITS]] = len(params), len(names), len(columns), age_bits
        arrays = (
            self._expected,
            self._names,
            self.table,
            self.ages,
            self.absent,
            self._view,
            self._step_layout,
        )
        self._frame[_EXPECTED:] = [array.ctypes.data for array in arrays]
        self._frame_at = self._frame.ctypes.data
        self._read = self._frame.item

    def expect(self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Expect these objects from now on, with the layouts that were planned for.

        Args:
            params: the batch's parameters, in its order.
            state: as in the constructor.
        """
        tensors: list[Tensor] = []
        self._expected[:, _PARAM] = [id(param) for param in params]
        if self._columns:
            place = {id(param): i for i, param in enumerate(state)}
            self._expected[:, _STATE_POSITION] = [place[id(param)] for param in params]
            for column, name in enumerate(self._columns, _FIRST_STATE):
                of_name = [state[param][name] for param in params]
                self._expected[:, column] = [id(tensor) for tensor in of_name]
                tensors += of_name
        self._same = SameTensors(tensors)

    def look(
        self,
        params: list[Tensor],
        grads: list[Tensor | None],
        keys: list[Tensor],
        states: list[dict[str, Any]],
    ) -> int:
        """Look again; ``HOLDS``, ``CHANGED`` or ``GRADIENT_LAYOUT`` (only strides of gradients changed).

        Args:
            params, grads: the group's parameters and their gradients as they are now.
            keys, states: the optimizer's ``state``, as lists of its keys and its values.
        """
        self.written.clear()
        if self._same.any_is_gone:
            return CHANGED
        try:
            self._look(self._frame_at, id(params), id(grads), id(keys), id(states), id(self.written))
        except Exception:  # a tensor without memory, on a device unknown to DLPack, ...
            return CHANGED
        return self._read(_VERDICT)

    @property
    def same_age(self) -> bool:
        """Whether all parameters that are stepped have taken equally many steps."""
        return bool(self._read(_SAME_AGE))

    @property
    def present(self) -> int:
        """How many parameters have a gradient."""
        return self._read(_PRESENT)


def layout(tensor: Tensor) -> list[int]:
    """Device, dtype, shape and strides as the words that a survey compares."""
    view = (ctypes.c_int64 * _VIEW_WORDS)()
    exchange = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(_exchange_api())
    exchange(tensor, ctypes.addressof(view))
    return [view[_DEVICE], view[_KIND], *tensor.shape, *tensor.stride()]


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
def _compiled_look() -> NativeFunction:
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
    source = repr(pkgutil.get_data(__package__, "survey.py"))
    look = native("survey", source, _build_look, 6 + len(addresses), holds_gil=True)
    return partial(look, *addresses)


def _build_look() -> Callable[..., Any]:
    """The loop itself, for the compiler. All its arguments are addresses."""
    import numba

    from .intrinsics import call2, pointer_to

    words, shorts = pointer_to(numba.int64), pointer_to(numba.float32)
    longs = pointer_to(numba.float64)

    @numba.njit(inline="always")
    def same_shape(view: Any, layout: Any) -> Any:
        if view[_DEVICE] != layout[0] or view[_KIND] != layout[1]:
            return False
        shape = words(view[_SHAPE])
        differ = False
        for d in range(view[_KIND] & 0xFFFFFFFF):
            differ |= shape[d] != layout[2 + d]
        return not differ

    @numba.njit(inline="always")
    def same_strides(view: Any, layout: Any) -> Any:
        """Equal where it matters: along dimensions of more than one element, if there are elements."""
        n = layout[1] & 0xFFFFFFFF
        strides = words(view[_STRIDES])
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
        for d in range(view[_KIND] & 0xFFFFFFFF):
            empty |= layout[2 + d] == 0
        if view[_DATA] == 0 and not empty:
            return -1
        return view[_DATA] + view[_OFFSET]

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
        frame[_VERDICT] = CHANGED
        frame[_SAME_AGE] = 1
        n_states = frame[_STATES]
        columns, age_bits = frame[_COLUMNS], frame[_AGE_BITS]
        names, ages, view_at = words(frame[_NAMES]), longs(frame[_AGES]), frame[_VIEW]
        absent, scalar = words(frame[_ABSENT]), words(frame[_STEP_LAYOUT])
        verdict = HOLDS
        present, age = 0, 0.0
        for i in range(frame[_COUNT]):
            row = words(frame[_EXPECTED] + 8 * i * (_FIRST_STATE + columns))
            addresses = words(frame[_TABLE] + 8 * i * (2 + columns))
            planned = words(row[_LAYOUT])
            grad = call2(list_item, grads, row[_POSITION])
            absent[i] = grad == none
            if absent[i]:
                continue
            if call2(list_item, params, row[_POSITION]) != row[_PARAM]:
                return
            own = 0
            if columns:
                if call2(list_item, keys, row[_STATE_POSITION]) != row[_PARAM]:
                    return
                own = call2(list_item, states, row[_STATE_POSITION])
            addresses[0] = memory(exchange, row[_PARAM], view_at, planned)
            if addresses[0] < 0:
                return
            call2(list_append, written, row[_PARAM])
            addresses[1] = memory(exchange, grad, view_at, planned)
            if addresses[1] == -1:
                return
            if addresses[1] == -2:
                verdict = GRADIENT_LAYOUT
            for s in range(columns):
                tensor = call2(dict_item, own, names[s])
                if tensor != row[_FIRST_STATE + s]:
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
                frame[_SAME_AGE] = 0
            present += 1
        frame[_PRESENT] = present
        frame[_VERDICT] = verdict

    return look
