"""The words of kernels for states of 8 bits, see :mod:`..eight_bits`, as instructions on 32 bits.

Numba would compute with 64 bits where a 32-bit integer meets a Python's, half as many at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..eight_bits import HALF, SIGNED, TINY, UNSIGNED

_BYTE, _WORD, _SINGLE = ir.IntType(8), ir.IntType(32), ir.FloatType()
_MAGNITUDE = _WORD(0x7FFFFFFF)


def _chosen(builder: Any, signed: Any, what: str, kind: Any) -> Any:
    """A number of the format that a block has: the same for all its elements."""
    return builder.select(signed, kind(getattr(SIGNED, what)), kind(getattr(UNSIGNED, what)))


def _is_signed(builder: Any, scale: Any) -> Any:
    return builder.fcmp_ordered("<", scale, _SINGLE(0.0))


def _absolute(builder: Any, number: Any) -> Any:
    return builder.bitcast(builder.and_(builder.bitcast(number, _WORD), _MAGNITUDE), _SINGLE)


@intrinsic
def decode(_typing: Any, _code: Any, _scale: Any) -> Any:
    """The number that a code stands for."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        code, scale = builder.zext(arguments[0], _WORD), arguments[1]
        signed = _is_signed(builder, scale)
        mask = _chosen(builder, signed, "mask", _WORD)
        magnitude = builder.and_(code, mask)
        lifted = builder.add(builder.shl(magnitude, _WORD(20)), _chosen(builder, signed, "lift", _WORD))
        is_zero = builder.icmp_unsigned("==", magnitude, _WORD(0))
        number = builder.select(is_zero, _SINGLE(0.0), builder.bitcast(lifted, _SINGLE))
        sign = builder.shl(builder.and_(code, builder.xor(mask, _WORD(0xFF))), _WORD(24))
        number = builder.bitcast(builder.or_(builder.bitcast(number, _WORD), sign), _SINGLE)
        return builder.fmul(number, _absolute(builder, scale))

    return types.float32(types.uint8, types.float32), generate


def _encoded(builder: Any, number: Any, scale: Any, inverse: Any, bits: Any) -> Any:
    signed = _is_signed(builder, scale)
    top = _chosen(builder, signed, "largest", _SINGLE)
    scaled = builder.fmul(_absolute(builder, number), inverse)
    scaled = builder.select(builder.fcmp_ordered("<", scaled, top), scaled, top)
    word = builder.bitcast(scaled, _WORD)
    word = builder.add(word, _WORD(HALF) if bits is None else builder.shl(bits, _WORD(4)))
    lift = builder.lshr(_chosen(builder, signed, "lift", _WORD), _WORD(20))
    word = builder.lshr(word, _WORD(20))
    code = builder.sub(builder.select(builder.icmp_unsigned(">", word, lift), word, lift), lift)
    sign_bit = builder.xor(_chosen(builder, signed, "mask", _WORD), _WORD(0xFF))
    sign = builder.and_(builder.lshr(builder.bitcast(number, _WORD), _WORD(24)), sign_bit)
    return builder.trunc(builder.or_(code, sign), _BYTE)


@intrinsic
def encode(_typing: Any, _number: Any, _scale: Any, _inverse: Any) -> Any:
    """The code of a number, by the scale of its block and what that is divided into one."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, scale, inverse = arguments
        return _encoded(builder, number, scale, inverse, None)

    return types.uint8(types.float32, types.float32, types.float32), generate


@intrinsic
def encode_by_chance(_typing: Any, _number: Any, _scale: Any, _inverse: Any, _bits: Any) -> Any:
    """As above, up as often as the number is on the way up; of 16 random bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, scale, inverse, bits = arguments
        return _encoded(builder, number, scale, inverse, bits)

    return types.uint8(types.float32, types.float32, types.float32, types.uint32), generate


@intrinsic
def larger_magnitude(_typing: Any, _word: Any, _number: Any) -> Any:
    """The bits of the largest magnitude so far; those of NaN are the largest."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        magnitude = builder.and_(builder.bitcast(arguments[1], _WORD), _MAGNITUDE)
        is_larger = builder.icmp_unsigned(">", magnitude, arguments[0])
        return builder.select(is_larger, magnitude, arguments[0])

    return types.uint32(types.uint32, types.float32), generate


@intrinsic
def any_negative(_typing: Any, _word: Any, _number: Any) -> Any:
    """Its first bit is set once a number had the bit of the sign."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.or_(arguments[0], builder.bitcast(arguments[1], _WORD))

    return types.uint32(types.uint32, types.float32), generate


@intrinsic
def scale_of(_typing: Any, _largest: Any, _any_negative: Any) -> Any:
    """The scale of a block: NaN if a number in it was infinite or NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        signed = builder.icmp_signed("<", arguments[1], _WORD(0))
        largest = builder.bitcast(arguments[0], _SINGLE)
        scale = builder.fdiv(largest, _chosen(builder, signed, "largest", _SINGLE))
        scale = builder.select(builder.fcmp_ordered("<", scale, _SINGLE(TINY)), _SINGLE(0.0), scale)
        is_finite = builder.icmp_unsigned("<", arguments[0], _WORD(0x7F800000))
        scale = builder.select(is_finite, scale, _SINGLE(float("nan")))
        sign = builder.select(signed, _WORD(0x80000000), _WORD(0))
        return builder.bitcast(builder.or_(builder.bitcast(scale, _WORD), sign), _SINGLE)

    return types.float32(types.uint32, types.uint32), generate


@intrinsic
def inverse_of(_typing: Any, _scale: Any) -> Any:
    """One by the magnitude of a scale; of zero, zero."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        scale = _absolute(builder, arguments[0])
        is_zero = builder.fcmp_ordered("==", scale, _SINGLE(0.0))
        return builder.select(is_zero, _SINGLE(0.0), builder.fdiv(_SINGLE(1.0), scale))

    return types.float32(types.float32), generate


# What kernels refer to by name.
WORDS = {
    "decode": decode,
    "encode": encode,
    "encode_by_chance": encode_by_chance,
    "larger_magnitude": larger_magnitude,
    "any_negative": any_negative,
    "scale_of": scale_of,
    "inverse_of": inverse_of,
    "nothing": np.uint32(0),
}
