"""What ``xp`` means inside a Triton kernel: torch's names for what ``triton.language`` calls otherwise.

Each is a function of its own, not a second name: Triton's interpreter replaces what stands in the module
``tl`` and would miss a reference that was taken before. NaN and rounding are torch's, so the precise square
root and the maximum that propagates NaN.
"""

# Triton's values have no Python types to write down.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
# ruff: noqa: ANN201, ANN202

import triton
import triton.language as tl


@triton.jit
def sqrt(x):
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


@triton.jit
def rsqrt(x):
    return 1.0 / sqrt(x)


@triton.jit
def whole_power(x, n: tl.constexpr):
    power = x
    for _ in tl.static_range(n - 1):
        power = power * x
    return power


@triton.jit
def power(x, y):
    # In double precision: the digits that a logarithm lacks are those that the exponential makes visible.
    base, exponent = x.to(tl.float64), y.to(tl.float64)
    size = tl.exp(exponent * tl.log(tl.abs(base)))
    is_whole = tl.floor(exponent) == exponent
    is_odd = tl.floor(exponent / 2) * 2 != exponent
    is_negative = tl.where(base == 0, 1.0 / base, base) < 0  # also -0
    of_whole = tl.where(is_odd, tl.where(is_negative, -size, size), size)
    of_others = tl.where(base < 0, tl.where(base > float("-inf"), float("nan"), size), size)
    return tl.where(exponent == 0, 1.0, tl.where(is_whole, of_whole, of_others)).to(x.dtype)


@triton.jit
def abs(x):
    return tl.abs(x)


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)  # torch's of NaN is zero


@triton.jit
def exp(x):
    return tl.exp(x)


@triton.jit
def log(x):
    return tl.log(x)


@triton.jit
def sin(x):
    return tl.sin(x)


@triton.jit
def cos(x):
    return tl.cos(x)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    # From the side where the exponential cannot overflow. Near zero 1 - e has no digits: Taylor's series.
    e = tl.exp(-2.0 * tl.abs(x))
    s = x * x
    series = x * (1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))))
    far = tl.where(x < 0, (e - 1.0) / (1.0 + e), (1.0 - e) / (1.0 + e))
    return tl.where(tl.abs(x) < 0.05, series, far)


@triton.jit
def floor(x):
    return tl.floor(x)


@triton.jit
def ceil(x):
    return tl.ceil(x)


@triton.jit
def maximum(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def clamp(x, min, max):
    return minimum(maximum(x, min), max)


# What is lost by rounding, and rounding by chance: see `..storage`. `lowbias32` in two parts, around a key.


@triton.jit
def finite(x):
    return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def _mixed(word, key):
    word = word ^ (word >> 16)
    word = word * tl.full((), 0x7FEB352D, tl.uint32) + key
    word = word ^ (word >> 15)
    word = word * tl.full((), 0x846CA68B, tl.uint32)
    return word ^ (word >> 16)


@triton.jit
def random_word(index, key, second_key):
    return _mixed(index.to(tl.uint32) ^ key, second_key)


@triton.jit
def next_word(word):
    return _mixed(word + tl.full((), 0x9E3779B9, tl.uint32), tl.full((), 0, tl.uint32))


@triton.jit
def _within(word, bits, largest):
    magnitude = word & tl.full((), 0x7FFFFFFF, tl.uint32)
    return tl.where(magnitude > largest, tl.full((), 0x8000, tl.uint32), bits)


@triton.jit
def stochastic_bfloat16(x, bits):
    word = x.to(tl.uint32, bitcast=True)
    word = word + _within(word, bits, tl.full((), 0x7F7F0000, tl.uint32))
    word = tl.where(x != x, tl.full((), 0x7FC00000, tl.uint32), word)
    return (word >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def stochastic_float16(x, bits):
    word = x.to(tl.uint32, bitcast=True)
    within = _within(word, bits, tl.full((), 0x477FE000, tl.uint32))
    cut = (word + (within >> 3)) & tl.full((), 0xFFFFE000, tl.uint32)
    usual = tl.where(x != x, x, cut.to(tl.float32, bitcast=True)).to(tl.float16).to(tl.uint16, bitcast=True)
    places = tl.where(tl.abs(x) < 2.0**-14, tl.abs(x) * 2.0**24, 0.0)
    below = places.to(tl.int32)
    up = bits.to(tl.float32) < (places - below.to(tl.float32)) * 65536.0
    count = tl.where(up, below + 1, below).to(tl.uint32)
    small = (count | ((word >> 16) & 0x8000)).to(tl.uint16)
    return tl.where(tl.abs(x) < 2.0**-14, small, usual).to(tl.float16, bitcast=True)


# -- reductions: NaN is larger than anything, and smaller ---------------------------------------------------


@triton.jit
def larger(a, x):
    return tl.where((x > a) | (x != x), x, a)


@triton.jit
def smaller(a, x):
    return tl.where((x < a) | (x != x), x, a)


# (`tl.reduce`: the interpreter would miss `tl.sum` and the like, which are functions for kernels themselves.)
@triton.jit
def total(block):
    return tl.reduce(block, 0, tl.standard._sum_combine)


@triton.jit
def largest(block):
    is_nan = tl.reduce(tl.where(block != block, 1.0, 0.0), 0, tl.standard._sum_combine)
    return tl.where(is_nan > 0, float("nan"), tl.reduce(block, 0, tl.standard._elementwise_max))


@triton.jit
def smallest(block):
    return -largest(-block)
