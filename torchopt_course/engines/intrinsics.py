"""What compiled code needs and numba has no word for: typed pointers, C calls, 16-bit floats.

Imported only while something is being compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def pointer_to(dtype: Any) -> Any:
    """A function for compiled code: an address (int64) as a pointer to ``dtype``."""

    @intrinsic
    def cast(_typing: Any, _address: Any) -> Any:
        signature = types.CPointer(dtype)(types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    return cast


@intrinsic
def call2(_typing: Any, _function: Any, _first: Any, _second: Any) -> Any:
    """``function(first, second)`` for the address of a C function of two words that returns a word."""
    word = ir.IntType(64)
    signature = types.int64(types.int64, types.int64, types.int64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        function = builder.inttoptr(arguments[0], ir.FunctionType(word, [word, word]).as_pointer())
        return builder.call(function, arguments[1:])

    return signature, generate


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


@intrinsic
def unchanged(_typing: Any, number: Any) -> Any:
    """What is stored as it is computed."""
    return number(number), lambda _context, _builder, _signature, arguments: arguments[0]
