"""The two things that compiled code needs and numba has no word for: a typed pointer and a C call.

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
