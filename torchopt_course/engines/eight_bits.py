"""8 bits: a state as one byte for each element and a scale for each block of 256.

A block's numbers are divided by its scale and rounded to small floating point numbers, whose places grow with
their size, as those of larger formats do: what is a thousandth of the largest still has its three digits.

- blocks with a negative number: a sign, 4 bits of exponent, 3 of mantissa, the largest 448: ``E4M3``, as in
  torch.float8_e4m3fn (Micikevicius et al., 2022);
- blocks without: the bit of the sign goes to the exponent, ``E5M3``, the largest 122,880. Means of squares
  reach over twice as many powers of ten as what was squared, and one that became zero would make a step of
  any length.

There are no subnormal numbers: code 0 is zero, the others have all their digits, and what is less than the
least of them becomes zero. Ties go up.

The scale is the block's largest magnitude by the format's largest number, in float32. Its sign tells the
format: negative for ``E4M3``. A block with infinity or NaN is NaN as a whole. Elements are counted as they
lie in memory. (Blocks with a scale of their own: Dettmers et al., 8-bit optimizers via block-wise
quantization, 2022.)
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

EIGHT_BITS = "8bit"
CODE = torch.uint8
BLOCK = 256
# A smaller state stays in float32: there is little to gain, and biases and norms are worth their digits.
LEAST_ELEMENTS = 4096


def coded_keys(name: str) -> tuple[str, str]:
    """What the codes and the scales of a state are called in a parameter's states."""
    return f"{name}_codes", f"{name}_scales"


def keys_of(own: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """What a state is kept under: its name, or codes and scales; nothing if there is none."""
    if own.get(name) is not None:
        return (name,)
    coded = coded_keys(name)
    return coded if all(own.get(key) is not None for key in coded) else ()


class Format(NamedTuple):
    """Small floating point numbers with 3 bits of mantissa, all of them finite and zero or normal.

    Attributes:
        bias: what is subtracted from the bits of the exponent.
        largest: the number that a block's largest magnitude becomes.
        mask: the bits of the magnitude.
    """

    bias: int
    largest: float
    mask: int

    @property
    def lift(self) -> int:
        """What float32's bits have more, above a mantissa of 20 bits more."""
        return (127 - self.bias) << 23


SIGNED, UNSIGNED = Format(7, 448.0, 0x7F), Format(15, 122_880.0, 0xFF)
# Of float32's bits below the last one that is kept.
HALF = 1 << 19
# float32's least number with all its digits: a scale below it is zero.
TINY = 2.0**-126


def blocks_of(count: int) -> int:
    """How many blocks so many elements have."""
    return -(-count // BLOCK)


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """The numbers of a state, in float32 and laid out in memory as the codes are."""
    code, scale = _in_memory(codes).to(torch.int32), _of_each(scales, codes.numel())
    signed = scale < 0
    magnitude = torch.where(signed, code & SIGNED.mask, code)
    usual = ((magnitude << 20) + _chosen(signed, "lift")).view(torch.float32)
    number = torch.where(magnitude == 0, 0.0, usual)
    number = torch.where(signed & (code > SIGNED.mask), -number, number) * scale.abs()
    result = torch.empty_like(codes, dtype=torch.float32)
    _in_memory(result).copy_(number)
    return result


def encode(numbers: Tensor, bits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes and scales of float32 numbers that are next to one another in memory, in whatever order.

    Args:
        bits: 16 random ones for each number, as int64: round up by chance. Otherwise to the nearest.
    """
    flat = _in_memory(numbers)
    padding = blocks_of(flat.numel()) * BLOCK - flat.numel()
    blocks = torch.nn.functional.pad(flat, (0, padding)).view(-1, BLOCK)
    largest, any_negative = blocks.abs().amax(1), blocks.signbit().any(1)
    scales = largest / _chosen(any_negative, "largest")
    scales = torch.where(scales < TINY, 0.0, scales).masked_fill(~(largest < inf), nan)
    inverse = torch.where(scales == 0, 0.0, scales.reciprocal())
    scales = torch.where(any_negative, -scales, scales)
    signed = _of_each(scales < 0, flat.numel())
    top = _chosen(signed, "largest")
    number = flat.abs() * _of_each(inverse, flat.numel())
    number = torch.where(number < top, number, top)
    word = number.view(torch.int32)
    word = word + (HALF if bits is None else (_in_memory(bits) << 4).to(torch.int32))
    code = ((word >> 20) - (_chosen(signed, "lift") >> 20)).clamp(min=0)
    code = torch.where(signed & flat.signbit(), code | 0x80, code)
    codes = torch.empty_like(numbers, dtype=CODE)
    _in_memory(codes).copy_(code)
    return codes, scales


def _chosen(signed: Tensor, what: str) -> Tensor:
    """A number of each element's format."""
    one, other = getattr(SIGNED, what), getattr(UNSIGNED, what)
    how: Any = {"dtype": torch.int32 if isinstance(one, int) else torch.float32, "device": signed.device}
    return torch.where(signed, torch.tensor(one, **how), torch.tensor(other, **how))


def _of_each(of_blocks: Tensor, count: int) -> Tensor:
    """For each element what its block has."""
    return of_blocks.repeat_interleave(BLOCK)[:count]


def _in_memory(tensor: Tensor) -> Tensor:
    """The elements in the order of memory, which has no gaps."""
    return tensor.as_strided((tensor.numel(),), (1,))
