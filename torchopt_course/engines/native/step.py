"""One native call for a whole step: guards, coefficients, kernels of all buckets of all groups.

Compiled once for all rules: of a rule it knows the address of the kernel and the program of its coefficients.
Nothing is written before all guards hold and all coefficients are known.
"""

from __future__ import annotations

import ctypes
import math
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from . import frame as f
from . import guards, numbers, search, update
from .api import api, can_look, layout
from .compiler import Address, CompilationError, callable_at, known, native

__all__ = ["can_look", "layout"]

LOOK, PREPARE, RUN, READY, ALL, VISIT = range(6)
_ENGINES = str(__package__).rpartition(".")[0]
# What is compiled, and whose numbers it was compiled with.
_FILES = (
    *((__package__, f"{name}.py") for name in ("frame", "guards", "numbers", "update", "search", "step")),
    (f"{_ENGINES}.cpu", "reductions.py"),
)


# Compiling takes some 3 seconds, once on a machine: in a short run Python is sooner done. How much it has
# done is counted in elements that one thread updates: for a step it takes as long as for so many, and for a
# tensor.
STEP, TENSOR = 150_000, 30_000
# Who has updated so many is in for a long run, as an epoch has hundreds of steps. A model of this size waits
# for one step, LeNet for 21, a small tensor for 56.
PATIENCE = 10_000_000


def is_ready() -> bool:
    """Whether the calls below can be made without compiling first."""
    if _Compiled.call is None and not _Compiled.is_sought:
        _Compiled.is_sought = True
        with suppress(CompilationError):
            if (address := known("step", _source())) is not None:
                _Compiled.take(address)
    return _Compiled.call is not None


def make_ready() -> None:
    """Compile, if that is not done yet.

    Raises:
        CompilationError: there is no compiler, or it fails.
    """
    if not is_ready():
        _Compiled.take(native("step", _source(), _build, 6))


def make_ready_in_time() -> None:
    """Called before a step that would be taken without compiled code: compile if that begins to pay."""
    if _Compiled.patience <= 0 and not _Compiled.is_tried:
        _Compiled.is_tried = True
        with suppress(CompilationError):  # it stays as it is; kernels have said why
            make_ready()


def is_waiting() -> bool:
    """Whether work is to be counted: it has not been compiled, nor has that been tried."""
    return not is_ready() and _Compiled.patience > 0


def count_work(tensors: int, elements: int) -> None:
    """Called after a step that was taken without compiled code."""
    _Compiled.patience -= STEP + tensors * TENSOR + elements


def look(bucket: int, params: list[Any], grads: list[Any], state: dict[Any, Any]) -> int:
    """Look at the tensors of a bucket; gives a verdict.

    Args:
        bucket: the address of its frame.
        params, grads: those of the group.
        state: the states of each parameter.

    Raises:
        Exception: a tensor cannot be looked at: it has no memory, or is on a device unknown to DLPack.
    """
    return _Compiled.ask(LOOK, bucket, id(params), id(grads), id(state))


def prepare(bucket: int) -> int:
    """Coefficients and threads of the coming step; gives a verdict."""
    return _Compiled.ask(PREPARE, bucket, 0, 0, 0)


def run(bucket: int) -> None:
    """Update, as prepared."""
    _Compiled.ask(RUN, bucket, 0, 0, 0)


def visit(bucket: int) -> None:
    """Visit all elements for a kernel that writes to none of them."""
    _Compiled.ask(VISIT, bucket, 0, 0, 0)


def step(groups: int, param_groups: list[dict[str, Any]], state: dict[Any, Any]) -> int:
    """Everything, if all is as planned; otherwise nothing, and a verdict that is not ``HOLDS``."""
    return _Compiled.ask(ALL, groups, id(param_groups), id(state), 0)


def ready(groups: int, param_groups: list[dict[str, Any]], state: dict[Any, Any]) -> int:
    """As :func:`step`, but no bucket is updated: each is left as :func:`prepare` leaves it."""
    return _Compiled.ask(READY, groups, id(param_groups), id(state), 0)


class _Compiled:
    """The compiled function of this process."""

    call: ClassVar[Callable[..., object] | None] = None
    is_sought: ClassVar[bool] = False
    patience: ClassVar[int] = PATIENCE
    is_tried: ClassVar[bool] = False

    @classmethod
    def take(cls, address: Address) -> None:
        cls.call = partial(callable_at(address, 6, holds_gil=True), api().ctypes.data)

    @classmethod
    def ask(cls, what: int, frame: int, *arguments: int) -> int:
        assert cls.call is not None, "asked before"
        cls.call(what, frame, *arguments)
        return ctypes.c_int64.from_address(frame + 8 * f.VERDICT).value


def _source() -> str:
    return repr([pkgutil.get_data(package, file) for package, file in _FILES])


def _build() -> Callable[..., Any]:
    import numba

    from .intrinsics import call1, call2, call_for_double, njit, pointer_to

    look = njit(guards.build())
    evaluate, coefficients = numbers.build()
    *updating, visit = update.build(coefficients)
    prepare, announce, run = map(njit, updating)
    find_several = njit(search.build(evaluate, coefficients, visit))
    words, doubles = pointer_to(numba.int64), pointer_to(numba.float64)

    @njit
    def options_hold(api: Any, group: Any, options: Any) -> Any:
        """Whether the options are as planned; their numbers are read for the coefficients."""
        fixed, values = words(group[f.FIXED]), doubles(group[f.VALUES])
        for k in range(group[f.FIXED_COUNT]):
            if call2(api[f.DICT_ITEM], options, fixed[2 * k]) != fixed[2 * k + 1]:
                return False
        for k in range(group[f.INPUT_COUNT]):
            row = words(group[f.INPUTS] + 8 * k * f.INPUT_WORDS)
            value = call2(api[f.DICT_ITEM], options, row[f.NAME])
            if value == 0:
                return False
            if row[f.INDEX] >= 0:
                if words(value)[1] != api[f.A_TUPLE] or call1(api[f.TUPLE_SIZE], value) != row[f.LENGTH]:
                    return False
                value = call2(api[f.TUPLE_ITEM], value, row[f.INDEX])
            if words(value)[1] != row[f.TYPE]:
                return False
            number = call_for_double(api[f.AS_DOUBLE], value)
            if not math.isfinite(number) or (row[f.IS_WHOLE] and abs(number) >= f.MOST_EXACT):
                return False
            if (row[f.TRUTH] == f.NOT_ZERO and number == 0) or (row[f.TRUTH] == f.ZERO and number != 0):
                return False
            values[k] = number
        return True

    @njit
    def no_grad(api: Any, params: Any, group: Any) -> Any:
        """Whether the parameters of which nothing is known have no gradient still."""
        unknown = words(group[f.UNKNOWN])
        for k in range(group[f.UNKNOWN_COUNT]):
            param = call2(api[f.LIST_ITEM], params, unknown[k])
            kind = words(param)[1]
            if kind != api[f.A_TENSOR] and kind != api[f.A_PARAMETER]:
                return False
            grad = call2(api[f.GET_GRAD], param, api[f.GRAD_CLOSURE])
            if grad:
                call1(api[f.DECREF], grad)
            if grad != api[f.NONE]:
                return False
        return True

    @njit
    def group_ready(api: Any, group: Any, buckets: Any, options: Any, state: Any) -> Any:
        """Whether one group can be stepped as planned, with all that its buckets need to run."""
        if words(options)[1] != api[f.A_DICT]:
            return f.CHANGED
        params = call2(api[f.DICT_ITEM], options, group[f.PARAMS_NAME])
        if params == 0 or words(params)[1] != api[f.A_LIST]:
            return f.CHANGED
        if call1(api[f.LIST_SIZE], params) != group[f.PARAM_COUNT]:
            return f.CHANGED
        if not options_hold(api, group, options):
            return f.OPTIONS
        if not no_grad(api, params, group):
            return f.CHANGED
        for k in range(group[f.BUCKETS_FROM], group[f.BUCKETS_TO]):
            bucket = words(buckets[k])
            verdict = look(api, bucket, params, 0, state)
            if verdict != f.HOLDS:
                return verdict
            registers, values = doubles(bucket[f.REGISTERS]), doubles(group[f.VALUES])
            moves = words(bucket[f.REGISTER_INPUTS])
            for j in range(bucket[f.REGISTER_INPUT_COUNT]):
                registers[moves[2 * j + 1]] = values[moves[2 * j]]
            verdict = prepare(api, bucket)
            if verdict != f.HOLDS:
                return verdict
        return f.HOLDS

    @njit
    def all_ready(api: Any, frame: Any, param_groups: Any, state: Any) -> Any:
        if call1(api[f.LIST_SIZE], param_groups) != frame[f.GROUP_COUNT]:
            return f.CHANGED
        groups, buckets = words(frame[f.GROUPS]), words(frame[f.BUCKETS])
        for i in range(frame[f.GROUP_COUNT]):
            options = call2(api[f.LIST_ITEM], param_groups, i)
            verdict = group_ready(api, words(groups[i]), buckets, options, state)
            if verdict != f.HOLDS:
                return verdict
        return find_several(api, frame) if frame[f.SEARCHES] or frame[f.RENEWS] else f.HOLDS

    @njit
    def run_all(api: Any, frame: Any) -> Any:
        buckets = words(frame[f.BUCKETS])
        for k in range(frame[f.BUCKET_COUNT]):
            if announce(api, words(buckets[k])) != f.HOLDS:
                return f.CHANGED
        for k in range(frame[f.BUCKET_COUNT]):
            run(api, words(buckets[k]))
        return f.HOLDS

    def step(api_at: Any, what: Any, frame_at: Any, first: Any, second: Any, third: Any) -> Any:
        api, frame = words(api_at), words(frame_at)
        if what == LOOK:
            verdict = look(api, frame, first, second, third)
        elif what == PREPARE:
            verdict = prepare(api, frame)
        elif what == RUN:
            verdict = announce(api, frame)
            if verdict == f.HOLDS:
                run(api, frame)
        elif what == VISIT:
            verdict = visit(api, frame)
        else:
            verdict = all_ready(api, frame, first, second)
            if what == ALL and verdict == f.HOLDS:
                verdict = run_all(api, frame)
        frame[f.VERDICT] = verdict

    return step
