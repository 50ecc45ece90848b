"""What compiled code needs and numba has no word for: typed pointers, C calls, 16-bit floats.

Imported only while something is being compiled.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .. import storage
from . import frame

# For functions that compiled code calls: no Python's way in, and a division by zero is infinite.
njit = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


def pointer_to(dtype: Any) -> Any:
    """A function for compiled code: an address (int64) as a pointer to ``dtype``."""

    @intrinsic
    def cast(_typing: Any, _address: Any) -> Any:
        signature = types.CPointer(dtype)(types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    return cast


def _caller(arity: int) -> Any:
    """A function for compiled code: call the C function at an address with words, for the word it returns."""
    word = ir.IntType(64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = builder.inttoptr(arguments[0], ir.FunctionType(word, [word] * arity).as_pointer())
        return builder.call(function, arguments[1:])

    # Numba wants to know the number of arguments, so it must be written out.
    names = ", ".join(f"_argument{i}" for i in range(arity))
    source = f"def call(_typing, _function, {names}): return signature, generate"
    scope: dict[str, Any] = {"signature": types.int64(*[types.int64] * (arity + 1)), "generate": generate}
    exec(source, scope)
    return intrinsic(scope["call"])


call0, call1, call2, call3, call4, call5 = map(_caller, range(6))


@intrinsic
def call_for_double(_typing: Any, _function: Any, _argument: Any) -> Any:
    """``function(argument)`` for the address of a C function of a word that returns a double."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        prototype = ir.FunctionType(ir.DoubleType(), [ir.IntType(64)])
        return builder.call(builder.inttoptr(arguments[0], prototype.as_pointer()), arguments[1:])

    return types.float64(types.int64, types.int64), generate


@intrinsic
def run_rows(_typing: Any) -> Any:
    """The address of a C function ``(begin, end, bucket)`` that runs the kernel on the parts begin to end.

    What ``torch_parallel_for`` calls, on any of torch's threads.
    """
    word, status = ir.IntType(64), ir.IntType(32)

    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        module, name = builder.module, "torchopt_course_run_rows"
        if name not in module.globals:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 3), name)
            function.linkage = "internal"
            inside = ir.IRBuilder(function.append_basic_block())
            begin, end, bucket = function.args

            def load(address: Any, index: Any) -> Any:
                return inside.load(inside.gep(inside.inttoptr(address, word.as_pointer()), [index]))

            # Numba's functions take two places first, for what they return and for an exception.
            places = [inside.alloca(word) for _ in range(2)]
            starts = load(bucket, word(frame.USED_STARTS))
            given = frame.TABLE, frame.USED_WORK, frame.NUMBERS, frame.SETS
            of_reductions = frame.SWEEP, frame.PARTIALS, frame.BLOCKS
            arguments = [
                *(load(bucket, word(w)) for w in (*given, *of_reductions)),
                *(load(starts, thread) for thread in (begin, end)),
            ]
            prototype = ir.FunctionType(status, [word.as_pointer()] * 2 + [word] * len(arguments))
            kernel = inside.inttoptr(load(bucket, word(frame.KERNEL)), prototype.as_pointer())
            inside.call(kernel, [*places, *arguments])
            inside.ret_void()
        return builder.ptrtoint(module.globals[name], word)

    return types.int64(), generate


@intrinsic
def narrow_vectors(_typing: Any) -> Any:
    """The function that calls this computes with vectors of 256 bits at most; results are the same."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        # llvmlite's own `add` knows LLVM's keywords only.
        set.add(builder.function.attributes, '"prefer-vector-width"="256"')
        return context.get_dummy_value()

    return types.void(), generate


def on_the_stack(kind: Any, count: int) -> Any:
    """A function for compiled code: a place for so many numbers, for as long as the caller runs."""

    @intrinsic
    def place(_typing: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            with builder.goto_entry_block():
                return builder.alloca(context.get_value_type(kind), count)

        return types.CPointer(kind)(), generate

    return place


# 16-bit floats are storage only: read as float32, computed as float32, rounded to nearest even when written.
# They travel as bits (uint16), for numba has no such types.
_BITS, _WORD, _HALF, _SINGLE = ir.IntType(16), ir.IntType(32), ir.HalfType(), ir.FloatType()


@intrinsic
def widen_bfloat16(_typing: Any, _bits: Any) -> Any:
    """bfloat16 is the upper half of a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = builder.shl(builder.zext(arguments[0], _WORD), _WORD(16))
        return builder.bitcast(word, _SINGLE)

    return types.float32(types.uint16), generate


@intrinsic
def narrow_bfloat16(_typing: Any, _number: Any) -> Any:
    """Add just under half of the last place, and cut; NaN stays NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = builder.bitcast(arguments[0], _WORD)
        odd = builder.and_(builder.lshr(word, _WORD(16)), _WORD(1))
        rounded = builder.add(word, builder.add(_WORD(0x7FFF), odd))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        chosen = builder.select(is_nan, _WORD(0x7FC00000), rounded)
        return builder.trunc(builder.lshr(chosen, _WORD(16)), _BITS)

    return types.uint16(types.float32), generate


@intrinsic
def widen_float16(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], _HALF), _SINGLE)

    return types.float32(types.uint16), generate


@intrinsic
def narrow_float16(_typing: Any, _number: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], _HALF), _BITS)

    return types.uint16(types.float32), generate


def _same_bits(source: Any, target: Any, kind: Any) -> Any:
    """A function for compiled code: a number as one of another type with the same bits."""

    @intrinsic
    def cast(_typing: Any, _number: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], kind)

        return target(source), generate

    return cast


bits_of = _same_bits(types.float64, types.int64, ir.IntType(64))
double_of = _same_bits(types.int64, types.float64, ir.DoubleType())


# Rounding by chance, see `..storage`: words of 32 bits, of which each rounding uses 16.


@intrinsic
def random_word(_typing: Any, _index: Any, _key: Any, _second_key: Any) -> Any:
    """A word that is a function of an element's index and its parameter's keys."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        index, key, second = (builder.trunc(argument, _WORD) for argument in arguments)
        return _mix(builder, builder.xor(index, key), second)

    return types.uint32(types.int64, types.int64, types.int64), generate


@intrinsic
def next_word(_typing: Any, _word: Any) -> Any:
    """Another word, for two more tensors."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _mix(builder, builder.add(arguments[0], _WORD(storage.NEXT)), _WORD(0))

    return types.uint32(types.uint32), generate


def _mix(builder: Any, word: Any, key: Any) -> Any:
    first, second, last = storage.SHIFTS
    word = builder.xor(word, builder.lshr(word, _WORD(first)))
    word = builder.add(builder.mul(word, _WORD(storage.FIRST_FACTOR)), key)
    word = builder.xor(word, builder.lshr(word, _WORD(second)))
    word = builder.mul(word, _WORD(storage.SECOND_FACTOR))
    return builder.xor(word, builder.lshr(word, _WORD(last)))


@intrinsic
def lower_half(_typing: Any, _word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.and_(arguments[0], _WORD(0xFFFF))

    return types.uint32(types.uint32), generate


@intrinsic
def upper_half(_typing: Any, _word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.lshr(arguments[0], _WORD(16))

    return types.uint32(types.uint32), generate


def _within(builder: Any, word: Any, bits: Any, largest: int) -> Any:
    """The random bits, but for numbers beyond a format's largest one."""
    beyond = builder.icmp_unsigned(">", builder.and_(word, _WORD(0x7FFFFFFF)), _WORD(largest))
    return builder.select(beyond, _WORD(storage.HALF_OF_A_PLACE), bits)


@intrinsic
def stochastic_bfloat16(_typing: Any, _number: Any, _bits: Any) -> Any:
    """Add 16 random bits below the last place, and cut: up as often as the number is on the way up."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, bits = arguments
        word = builder.bitcast(number, _WORD)
        rounded = builder.add(word, _within(builder, word, bits, storage.LARGEST_BFLOAT16))
        is_nan = builder.fcmp_unordered("uno", number, number)
        chosen = builder.select(is_nan, _WORD(0x7FC00000), rounded)
        return builder.trunc(builder.lshr(chosen, _WORD(16)), _BITS)

    return types.uint16(types.float32, types.uint32), generate


@intrinsic
def stochastic_float16(_typing: Any, _number: Any, _bits: Any) -> Any:
    """As above with 13 bits; below 2**-14 the places of float16 are whole multiples of 2**-24."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, bits = arguments
        word = builder.bitcast(number, _WORD)
        is_nan = builder.fcmp_unordered("uno", number, number)
        within = _within(builder, word, bits, storage.LARGEST_FLOAT16)
        cut = builder.and_(builder.add(word, builder.lshr(within, _WORD(3))), _WORD(0xFFFFE000))
        cut = builder.select(is_nan, word, cut)
        usual = builder.bitcast(builder.fptrunc(builder.bitcast(cut, _SINGLE), _HALF), _BITS)

        magnitude = builder.bitcast(builder.and_(word, _WORD(0x7FFFFFFF)), _SINGLE)
        is_small = builder.fcmp_ordered("<", magnitude, _SINGLE(2.0**-14))
        places = builder.select(is_small, builder.fmul(magnitude, _SINGLE(2.0**24)), _SINGLE(0.0))
        below = builder.fptosi(places, _WORD)
        part = builder.fsub(places, builder.sitofp(below, _SINGLE))
        chance = builder.sitofp(bits, _SINGLE)
        up = builder.fcmp_ordered("<", chance, builder.fmul(part, _SINGLE(2.0**16)))
        count = builder.add(below, builder.zext(up, _WORD))
        sign = builder.and_(builder.lshr(word, _WORD(16)), _WORD(0x8000))
        small = builder.trunc(builder.or_(count, sign), _BITS)
        return builder.select(is_small, small, usual)

    return types.uint16(types.float32, types.uint32), generate


# What kernels refer to by name.
WORDS = {
    function.__name__: function
    for function in (
        widen_bfloat16, narrow_bfloat16, widen_float16, narrow_float16,
        random_word, next_word, lower_half, upper_half, stochastic_bfloat16, stochastic_float16,
    )
}  # fmt: skip
