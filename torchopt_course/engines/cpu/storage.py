"""How numbers are read and written by a kernel for the CPU: source text, see :mod:`..storage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..eight_bits import BLOCK, CODE

# What is stored, what it is computed in, and the words between the two.
KINDS = {
    torch.float32: ("float32", "float32", "unchanged", "unchanged"),
    torch.float64: ("float64", "float64", "unchanged", "unchanged"),
    torch.bfloat16: ("uint16", "float32", "widen_bfloat16", "narrow_bfloat16"),
    torch.float16: ("uint16", "float32", "widen_float16", "narrow_float16"),
}
POINTERS = {**{dtype: kind for dtype, (kind, *_) in KINDS.items()}, CODE: "uint8"}


class Storage:
    """How numbers are read and written, as text; computed is in one precision for all."""

    def __init__(self, real: torch.dtype) -> None:
        self._real = str(real).removeprefix("torch.")

    def read(self, number: str, dtype: torch.dtype) -> str:
        _, wide, read, _ = KINDS[dtype]
        number = number if read == "unchanged" else f"{read}({number})"
        return number if wide == self._real else f"real({number})"

    def narrow(self, number: str, dtype: torch.dtype) -> str:
        _, wide, _, write = KINDS[dtype]
        number = number if wide == self._real else f"{'single' if wide == 'float32' else 'real'}({number})"
        return number if write == "unchanged" else f"{write}({number})"

    def kept(self, number: str, dtype: torch.dtype) -> str:
        """What is left of a number that is written and read again."""
        return self.read(self.narrow(number, dtype), dtype)

    def write_both(self, name: str, dtype: torch.dtype, number: str) -> list[str]:
        """To nearest, with what is lost beside it. (Of infinity and NaN nothing is.)"""
        return [
            f"new_{name} = {self.narrow(number, dtype)}",
            f"lost_{name} = {number} - {self.read(f'new_{name}', dtype)}",
            f"at_{name}[i] = new_{name}",
            f"lost_{name} = lost_{name} if abs(lost_{name}) < real(inf) else real(0)",
            f"at_lost_{name}[i] = {self.narrow(f'lost_{name}', dtype)}",
        ]

    def write_by_chance(self, name: str, dtype: torch.dtype, number: str, place: int) -> str:
        kind = str(dtype).removeprefix("torch.")
        return f"at_{name}[i] = stochastic_{kind}(single({number}), {self._bits(place)})"

    @staticmethod
    def _bits(place: int) -> str:
        """The lower or the upper half of a random word."""
        return f"{'upper' if place % 2 else 'lower'}_half(word_{place // 2})"

    def read_code(self, name: str, scale: str) -> str:
        number = f"decode(at_{name}[i], {scale})"
        return number if self._real == "float32" else f"real({number})"

    def keep(self, name: str, number: str) -> list[str]:
        """Put a number of a block aside, and note how large it is."""
        return [
            f"new_{name} = single({number})",
            f"fresh_{name}[i - start] = new_{name}",
            f"largest_{name} = larger_magnitude(largest_{name}, new_{name})",
            f"negative_{name} = any_negative(negative_{name}, new_{name})",
        ]

    def write_code(self, name: str, by_chance: Sequence[str]) -> str:
        given = f"fresh_{name}[i - start], scale_{name}, inverse_{name}"
        if name not in by_chance:
            return f"at_{name}[i] = encode({given})"
        return f"at_{name}[i] = encode_by_chance({given}, {self._bits(by_chance.index(name))})"


def read_lines(
    said: Storage,
    dtypes: Mapping[str, torch.dtype],
    kept: Sequence[str],
    names: Sequence[str],
    *,
    in_block: bool = False,
) -> list[str]:
    """Read the element ``i`` of some tensors, with what rounding has kept of it.

    Args:
        in_block: whether the scales of its block are known.
    """
    columns = {name: dtypes[name] for name in names}
    columns |= {f"lost_{name}": dtypes[name] for name in names if name in kept}

    def read(name: str, dtype: torch.dtype) -> str:
        if dtype == CODE:
            scale = f"scale_{name}" if in_block else f"at_scale_{name}[(offset + i) // {BLOCK}]"
            return said.read_code(name, scale)
        return said.read(f"at_{name}[i]", dtype)

    return [
        *(f"{name} = {read(name, dtype)}" for name, dtype in columns.items()),
        *(f"{name} = {name} + lost_{name}" for name in names if name in kept),
    ]


def random_lines(count: int) -> list[str]:
    """Random words for an element, enough for so many tensors: one has bits for two."""
    chain = ("random_word(offset + i, key, second_key)", *(f"next_word(word_{k})" for k in range(count)))
    return [f"word_{k} = {chain[k]}" for k in range((count + 1) // 2)]


def block_lines(coded: Sequence[str], each: Sequence[str], codes: Sequence[str]) -> list[str]:
    """Visit all elements, block by block: the scale of states of 8 bits is known when a block is computed.

    Args:
        coded: those states.
        each: what is done for an element; it keeps their new numbers.
        codes: then for each again, their codes.
    """
    return [
        f"for start in range(0, n, {BLOCK}):",
        f"    stop, block = min(n, start + {BLOCK}), (offset + start) // {BLOCK}",
        *(f"    scale_{name} = at_scale_{name}[block]" for name in coded),
        *(f"    largest_{name} = negative_{name} = nothing" for name in coded),
        "    for i in range(start, stop):",
        *(f"        {line}" for line in each),
        *(f"    scale_{name} = scale_of(largest_{name}, negative_{name})" for name in coded),
        *(f"    inverse_{name} = inverse_of(scale_{name})" for name in coded),
        *(f"    at_scale_{name}[block] = scale_{name}" for name in coded),
        "    for i in range(start, stop):",
        *(f"        {line}" for line in codes),
    ]
