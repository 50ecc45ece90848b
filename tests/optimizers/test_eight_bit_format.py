"""The format of 8-bit states, codes and scales of blocks, against its definition and torch's float8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchopt_course.engines.eight_bits import decode, encode


def numbers(count: int, *, signed: bool) -> Tensor:
    """Over many powers of ten, in blocks of 256 of very different size."""
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, generator=generator) * 10 ** torch.empty(count).uniform_(
        -4, 1, generator=generator
    )
    x = x * (torch.arange(count) // 256 + 1)
    return x if signed else x * x


def small_floats(bias: int, bits: int) -> Tensor:
    """All numbers of a format with 3 bits of mantissa, by the definition of floating point numbers."""
    codes = torch.arange(2**bits)
    exponent, mantissa = codes // 8, (codes % 8).double() / 8
    usual = (1 + mantissa) * 2.0 ** (exponent - bias).double()
    return torch.where(codes == 0, 0.0, usual)


def test_signed_blocks_are_torchs_float8_but_for_its_subnormal_numbers() -> None:
    x = numbers(3 * 256 + 17, signed=True)
    codes, scales = encode(x)
    for start in range(0, len(x), 256):
        block = x[start : start + 256]
        scale = block.abs().max() / 448
        assert scales[start // 256] == -scale
        scaled = (block * (1 / scale)).clamp(-448, 448)
        expected = scaled.to(torch.float8_e4m3fn)
        normal = scaled.abs() >= 2.0**-6
        assert normal.sum() > len(block) // 2
        assert codes[start : start + 256][normal].equal(expected.view(torch.uint8)[normal])
        assert decode(codes, scales)[start : start + 256][normal].equal((expected.float() * scale)[normal])


@pytest.mark.parametrize(("signed", "bias", "bits", "top"), [(True, 7, 7, 448), (False, 15, 8, 122_880)])
def test_codes_are_the_nearest_numbers_of_their_format(
    signed: bool, bias: int, bits: int, top: float
) -> None:
    x = numbers(2 * 256, signed=signed)
    x[5] = 0
    codes, scales = encode(x)
    known = small_floats(bias, bits)
    assert known.unique().equal(known), "in the order of their codes, all different"
    assert top in known
    for start in range(0, len(x), 256):
        block, of_block = x[start : start + 256], codes[start : start + 256].long()
        scale = block.abs().max() / top
        assert scales[start // 256] == (-scale if signed else scale)
        scaled = (block.abs() * (1 / scale)).double()
        got, nearest = known[of_block % 2**bits], (known - scaled[:, None]).abs().min(dim=1).values
        usual = scaled >= known[1]  # what is less than half of the least becomes zero, and some that is more
        torch.testing.assert_close((got - scaled).abs()[usual], nearest[usual], rtol=1e-9, atol=0)
        assert (got[~usual] <= known[1]).all()
    assert decode(codes, scales)[5] == 0


@pytest.mark.parametrize("signed", [True, False])
def test_errors_are_within_a_sixteenth_and_what_is_small_has_a_floor(signed: bool) -> None:
    x = numbers(4096, signed=signed)
    error = (decode(*encode(x)) - x).abs().view(-1, 256)
    blocks = x.abs().view(-1, 256)
    largest = blocks.amax(dim=1, keepdim=True)
    floor = largest * 1.125 * (2.0**-7 / 448 if signed else 2.0**-15 / 122_880)
    assert (error <= (blocks / 16).maximum(floor) * (1 + 1e-5)).all()


def test_chance_is_right_in_the_mean() -> None:
    x = torch.tensor([1.0, 0.03, 0.77, 1e-3, 1e-4, 0.0]).repeat_interleave(40)
    bits = torch.randint(2**16, (500, len(x)), generator=torch.Generator().manual_seed(0))
    for sign in (1.0, -1.0):
        mean = sum(decode(*encode(sign * x, row)) for row in bits) / len(bits)
        off = (sign * mean - x).view(6, 40).mean(dim=1)
        # 20,000 draws of each number, whose places are at most an eighth of it apart.
        assert (off.abs() <= 5 * x.view(6, 40)[:, 0] / 8 / 2 / 20_000**0.5).all()


def test_infinity_and_nan_are_not_lost_and_zeros_stay() -> None:
    for odd in (float("inf"), -float("inf"), float("nan")):
        x = torch.zeros(512)
        x[3] = odd
        back = decode(*encode(x))
        assert back[:256].isnan().all(), "a block has one scale"
        assert (back[256:] == 0).all()
    tiny = torch.full((256,), 1e-40)
    assert (decode(*encode(tiny)) == 0).all()
