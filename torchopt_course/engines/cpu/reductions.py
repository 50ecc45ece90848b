"""Sums, norms and the like in a kernel for the CPU: source text, and what it rests on.

A tensor is cut into blocks of :data:`BLOCK` elements, wherever it is in memory and however many threads
share it. Each block gives one number, in double precision: element ``i`` goes to the lane ``i % LANES``,
and the lanes are added up in order. Blocks are added up in order by whoever needs the whole. So the result
depends on nothing but the numbers, and the lanes, which know nothing of one another, are computed as many
at a time as the processor can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rule.program import Line

BLOCK = 4096
LANES = 128

# What an element `x` adds to what there is, `a`.
_TEXTS = {
    "sum": "{a} + double({x})",
    "mean": "{a} + double({x})",
    "norm": "{a} + double({x}) * double({x})",
    "amax": "larger({a}, double({x}))",
    "amin": "smaller({a}, double({x}))",
    **dict.fromkeys(("any", "all", "count_nonzero"), "{a} + double({x} != 0)"),
}
# Two of them together; their beginning; what becomes of the whole of `size` elements.
_JOINED = {"amax": "larger({a}, {x})", "amin": "smaller({a}, {x})"}
_BEGINNINGS = {"amax": "-inf", "amin": "inf"}
_WHOLES = {
    "mean": "real({0} / size)",
    "norm": "real(sqrt({0}))",
    "any": "{0} > 0",
    "all": "{0} == size",
}


def larger(a: float, x: float) -> float:
    """As torch's: NaN is larger than anything."""
    return x if (x > a) | (x != x) else a


def smaller(a: float, x: float) -> float:
    return x if (x < a) | (x != x) else a


def block_text(
    reading: Sequence[str],
    lines: Sequence[str],
    reductions: Sequence[Line],
    places: Sequence[int],
    width: int,
) -> list[str]:
    """Visit all elements of a part of a tensor, block by block, and write down what each block gives.

    Args:
        reading: read the element ``i``.
        lines: compute what is to be reduced.
        reductions: how.
        places: the columns of their results, of ``width``.
    """
    lanes = [f"lanes[{k * LANES} + lane]" for k in range(len(reductions))]
    add = [
        f"{lane} = {_TEXTS[line.word].format(a=lane, x=line.operands[0])}"
        for lane, line in zip(lanes, reductions, strict=True)
    ]
    each = [*reading, *lines, *add]
    return [
        f"block = blocks[2 * item] + offset // {BLOCK}",
        f"for start in range(0, n, {BLOCK}):",
        f"    stop = min(n, start + {BLOCK})",
        # Not simply all: what is written out for each lane takes long to compile.
        f"    used = min({LANES}, stop - start)",
        "    for lane in range(used):",
        *(f"        {lane} = {_beginning(line)}" for lane, line in zip(lanes, reductions, strict=True)),
        # Whole rows by themselves: how often their inner loop runs is known when it is compiled.
        f"    whole_rows = start + (stop - start) // {LANES} * {LANES}",
        f"    for row_of_lanes in range(start, whole_rows, {LANES}):",
        f"        for lane in range({LANES}):",
        "            i = row_of_lanes + lane",
        *(f"            {line}" for line in each),
        "    for lane in range(stop - whole_rows):",
        "        i = whole_rows + lane",
        *(f"        {line}" for line in each),
        *(f"    {line}" for line in _joined("lane in range(used)", reductions, lanes)),
        *(
            f"    partials[block * {width} + {place}] = whole_{line.out}"
            for line, place in zip(reductions, places, strict=True)
        ),
        "    block += 1",
    ]


def whole_text(known: Sequence[Line], places: Sequence[int], width: int) -> list[str]:
    """The numbers of a whole tensor, of what its blocks gave."""
    if not known:
        return []
    blocks = f"block in range(blocks[2 * item], blocks[2 * item] + (size + {BLOCK - 1}) // {BLOCK})"
    return [
        *_joined(blocks, known, [f"partials[block * {width} + {place}]" for place in places]),
        *(
            f"{line.out} = {_WHOLES.get(line.word, 'real({0})').format(f'whole_{line.out}')}"
            for line in known
        ),
    ]


def whole(word: str, blocks: np.ndarray[Any, np.dtype[np.float64]], size: int) -> float:
    """A number of several tensors, of what their blocks gave in order, as :mod:`..native.search` makes it."""
    if word in ("amax", "amin"):
        extreme = np.max if word == "amax" else np.min
        return float(extreme(blocks, initial=float(_BEGINNINGS[word])))
    total = float(np.cumsum(blocks)[-1]) if len(blocks) else 0.0
    if word == "norm":
        return math.sqrt(total)
    truths = {"any": total > 0, "all": total == size}
    return float(truths.get(word, total))


def _beginning(line: Line) -> str:
    return _BEGINNINGS.get(line.word, "0.0")


def _joined(loop: str, reductions: Sequence[Line], parts: Sequence[str]) -> list[str]:
    """Parts put together, in the order of a loop."""
    lines = [f"whole_{line.out} = {_beginning(line)}" for line in reductions]
    lines.append(f"for {loop}:")
    for line, part in zip(reductions, parts, strict=True):
        name = f"whole_{line.out}"
        lines.append(f"    {name} = {_JOINED.get(line.word, '{a} + {x}').format(a=name, x=part)}")
    return lines
