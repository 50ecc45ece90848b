"""The compiled look at every tensor of a bucket, before every step; see :mod:`..guards` for what it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import frame as f


def build() -> Callable[..., Any]:
    """``look(api, bucket, params, grads, state)`` for the compiler; gives the verdict.

    ``api`` and ``bucket`` are arrays of words, the rest addresses of a list of parameters, of a list of their
    gradients (0: their ``.grad``) and of the dictionary of their states.
    """
    import numba

    from .intrinsics import call1, call2, call4, njit, pointer_to

    words, shorts, longs = pointer_to(numba.int64), pointer_to(numba.float32), pointer_to(numba.float64)

    @njit
    def memory(exchange: Any, tensor: Any, view_at: Any, layout_at: Any, strict: Any) -> Any:
        """The tensor's address; -1 if it is not as planned, -2 if only its strides are not (if strict)."""
        view, layout = words(view_at), words(layout_at)
        if call2(exchange, tensor, view_at) & 0xFFFFFFFF != 0:
            return -1
        if view[f.DEVICE] != layout[0] or view[f.RANK_AND_DTYPE] != layout[1]:
            return -1
        rank = layout[1] & 0xFFFFFFFF
        shape, strides = words(view[f.SHAPE]), words(view[f.STRIDES])
        sizes, steps = words(layout_at + 16), words(layout_at + 16 + 8 * rank)
        strange, empty, moved = False, False, False
        for d in range(rank):
            strange |= shape[d] != sizes[d]
            empty |= sizes[d] == 0
            moved |= (sizes[d] != 1) & (strides[d] != steps[d])
        if strange or (view[f.DATA] == 0 and not empty):
            return -1
        if strict and moved and not empty:
            return -2
        return view[f.DATA] + view[f.OFFSET]

    @njit
    def is_true(api: Any, method: Any, tensor: Any) -> Any:
        answer = call2(method, tensor, 0)
        call1(api[f.DECREF], answer)
        return answer == api[f.TRUE]

    @njit
    def gradient(api: Any, grad: Any, view_at: Any, layout: Any, strict: Any) -> Any:
        kind = words(grad)[1]
        if (kind != api[f.A_TENSOR] and kind != api[f.A_PARAMETER]) or is_true(api, api[f.IS_NEG], grad):
            return -1
        return memory(api[f.EXCHANGE], grad, view_at, layout, strict)

    @njit
    def place_of(api: Any, state: Any, key: Any, hint: Any, after: Any, at: Any) -> Any:
        """Where an entry stands in the dictionary of states; -1 if nowhere. Its value is in the scratch."""
        entry = words(at)
        for start in (hint, after):
            entry[0] = start
            if call4(api[f.DICT_NEXT], state, at, at + 8, at + 16) & 0xFFFFFFFF and entry[1] == key:
                return start
        entry[0] = 0
        while True:
            start = entry[0]
            if call4(api[f.DICT_NEXT], state, at, at + 8, at + 16) & 0xFFFFFFFF == 0:
                return -1
            if entry[1] == key:
                return start

    def look(api: Any, bucket: Any, params: Any, grads: Any, state: Any) -> Any:
        if call1(api[f.LIST_SIZE], bucket[f.GONE]) != 0:
            return f.CHANGED
        count, n_states, columns, age_bits = (
            bucket[f.COUNT],
            bucket[f.STATES],
            bucket[f.COLUMNS],
            bucket[f.AGE_BITS],
        )
        names, ages, absent = words(bucket[f.NAMES]), longs(bucket[f.AGES]), words(bucket[f.ABSENT])
        written, read = bucket[f.WRITTEN], bucket[f.READ]
        scratch, strict = bucket[f.SCRATCH], bucket[f.STRIDES_COUNT]
        view, entry = scratch + 24, words(scratch)
        verdict, present, age, same_age, after = f.HOLDS, 0, 0.0, 1, 0
        call4(api[f.LIST_SET_SLICE], written, 0, 1 << 40, 0)
        if read:
            call4(api[f.LIST_SET_SLICE], read, 0, 1 << 40, 0)
        for i in range(count):
            row = words(bucket[f.EXPECTED] + 8 * i * (f.FIRST_STATE + 2 * columns))
            addresses = words(bucket[f.TABLE] + 8 * i * (2 + columns))
            planned = row[f.LAYOUT]
            param = call2(api[f.LIST_ITEM], params, row[f.POSITION])
            kind = words(param)[1]
            if kind != api[f.A_TENSOR] and kind != api[f.A_PARAMETER]:
                return f.CHANGED
            if grads:
                grad = call2(api[f.LIST_ITEM], grads, row[f.POSITION])
            else:
                grad = call2(api[f.GET_GRAD], param, api[f.GRAD_CLOSURE])
                if grad == 0:
                    return f.CHANGED
            absent[i] = grad == api[f.NONE]
            address = 0
            if not absent[i]:
                address = gradient(api, grad, view, row[f.GRAD_LAYOUT], strict)
                if read:
                    call2(api[f.LIST_APPEND], read, grad)
            if not grads:
                call1(api[f.DECREF], grad)  # its parameter holds it
            if absent[i]:
                continue
            if address == -2:
                verdict = f.GRADIENT_LAYOUT
            elif address < 0:
                return f.CHANGED
            bucket[f.GRADS_MOVED] |= addresses[1] != address
            addresses[1] = address
            if param != row[f.PARAM] or kind != row[f.KIND]:
                return f.CHANGED
            address = memory(api[f.EXCHANGE], param, view, planned, strict)
            if address < 0:
                return f.CHANGED
            bucket[f.TARGETS_MOVED] |= addresses[0] != address
            addresses[0] = address
            call2(api[f.LIST_APPEND], written, param)
            if columns:
                row[f.PLACE] = place_of(api, state, param, row[f.PLACE], after, scratch)
                if row[f.PLACE] < 0:
                    row[f.PLACE] = 0
                    return f.CHANGED
                after, own = entry[0], entry[2]
                if words(own)[1] != api[f.A_DICT]:
                    return f.CHANGED
                for s in range(columns):
                    tensor = call2(api[f.DICT_ITEM], own, names[s])
                    if tensor != row[f.FIRST_STATE + s]:
                        return f.CHANGED
                    expected = row[f.FIRST_STATE + columns + s]
                    address = memory(api[f.EXCHANGE], tensor, view, expected, strict)
                    if address < 0:
                        return f.CHANGED
                    if s < n_states:
                        bucket[f.TARGETS_MOVED] |= addresses[2 + s] != address
                    addresses[2 + s] = address
                    call2(api[f.LIST_APPEND], written, tensor)
            elif is_true(api, api[f.IS_NEG], param) or is_true(api, api[f.IS_INFERENCE], param):
                # No state would tell of a new parameter under an old one's id.
                return f.CHANGED
            if age_bits == 32:
                ages[i] = shorts(addresses[2 + n_states])[0]
            elif age_bits == 64:
                ages[i] = longs(addresses[2 + n_states])[0]
            if present == 0:
                age = ages[i]
            elif ages[i] != age:
                same_age = 0
            present += 1
        bucket[f.PRESENT], bucket[f.SAME_AGE] = present, same_age
        return verdict

    return look
