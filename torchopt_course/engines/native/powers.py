"""Powers of single precision for compiled code, as many at a time as the processor can.

The C library computes them one by one. Here ``x ** y`` is two to the power of ``y log2(x)``, in operations
of double precision and without a branch: some 32 bits are right, of which 24 are kept. Imported only while
something is being compiled.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .intrinsics import bits_of, double_of

# log2(m) is a series of odd powers of (m - 1) / (m + 1), and 2**t one of powers of t.
L0, L1, L2, L3, L4, L5 = (2 / math.log(2) / (2 * k + 1) for k in range(6))
E0, E1, E2, E3, E4, E5, E6, E7, E8 = (math.log(2) ** k / math.factorial(k) for k in range(9))
MANTISSA, EXPONENT_OF_ONE, EXPONENT_OF_ROUNDING = (1 << 52) - 1, 1023 << 52, 1075 << 52
# Added to 2**52 a number loses all digits behind the point, and its own are the last ones of the bits; to one
# and a half of it, a negative number too.
ROUNDING = 2.0**52
# Powers of two beyond these are infinite or zero in single precision.
MOST = 200.0


@numba.njit(inline="always")
def double_power(x: Any, y: Any) -> Any:
    """The same of two numbers of double precision, by the C library."""
    return x**y


@numba.njit(inline="always")
def power(x: Any, y: Any) -> Any:
    """``x ** y`` of two numbers of single precision, as IEEE 754 has it."""
    size, exponent = np.float64(abs(x)), np.float64(y)
    bits = bits_of(size)
    mantissa = double_of((bits & MANTISSA) | EXPONENT_OF_ONE)
    is_large = mantissa > 1.4142135623730951
    doublings = double_of((bits >> 52) | EXPONENT_OF_ROUNDING) - ROUNDING - (1022.0 if is_large else 1023.0)
    mantissa = mantissa * 0.5 if is_large else mantissa
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    series = ((((L5 * z + L4) * z + L3) * z + L2) * z + L1) * z + L0
    logarithm = doublings + s * series
    logarithm = -np.inf if size == 0.0 else logarithm
    logarithm = size if not size < np.inf else logarithm  # infinity and NaN
    t = exponent * logarithm
    within = t if t < MOST else MOST
    within = within if within > -MOST else -MOST
    shifted = within + 1.5 * ROUNDING
    r = within - (shifted - 1.5 * ROUNDING)
    series = (((((((E8 * r + E7) * r + E6) * r + E5) * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    result = series * double_of((bits_of(shifted) << 52) + EXPONENT_OF_ONE)
    result = t if t != t else result
    is_whole = np.floor(exponent) == exponent
    is_odd = is_whole & (np.floor(exponent * 0.5) != exponent * 0.5)
    result = math.copysign(result, x) if is_odd else result
    result = np.nan if (x < 0.0) & (size < np.inf) & (not is_whole) else result
    is_one = (exponent == 0.0) | ((size == 1.0) & ((x > 0.0) | (abs(exponent) == np.inf)))
    return np.float32(1.0 if is_one else result)
