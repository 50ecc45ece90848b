"""Sums, norms and the like in a kernel for the GPU: source text.

Each program of a launch gives one number for its part of a tensor, in double precision; a second, small
launch adds up the parts of each tensor, in order. Nothing waits for the host, and the result does not
depend on which program runs first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..rule.program import Line

# What an element `x` adds to what there is, `a`, both in double precision.
_TEXTS = {
    "norm": "{a} + {x} * {x}",
    "amax": "xp.larger({a}, {x})",
    "amin": "xp.smaller({a}, {x})",
    **dict.fromkeys(("any", "all", "count_nonzero"), "{a} + tl.where({x} != 0, 1.0, 0.0)"),
}
_SUM = "{a} + {x}"
_JOINED = {"amax": "xp.larger({a}, {x})", "amin": "xp.smaller({a}, {x})"}
_BEGINNINGS = {"amax": 'float("-inf")', "amin": 'float("inf")'}
# A block of numbers as one; what becomes of the whole.
_OF_BLOCK = {"amax": "xp.largest({0})", "amin": "xp.smallest({0})"}
_WHOLES = {
    "mean": "{0} / size.to(tl.float64)",
    "norm": "tl.sqrt({0})",
    "any": "tl.where({0} > 0, 1.0, 0.0)",
    "all": "tl.where({0} == size.to(tl.float64), 1.0, 0.0)",
}
_TRUTHS = frozenset({"any", "all"})


def begin(reductions: Sequence[Line]) -> list[str]:
    """Nothing has been visited yet."""
    return [
        f"of_{line.out} = tl.full((BLOCK,), {_BEGINNINGS.get(line.word, '0.0')}, tl.float64)"
        for line in reductions
    ]


def add(reductions: Sequence[Line]) -> list[str]:
    """Take in a block, of which ``{inside}`` says what is part of the tensor."""
    lines = []
    for line in reductions:
        name = f"of_{line.out}"
        text = _TEXTS.get(line.word, _SUM).format(a=name, x=f"{line.operands[0]}.to(tl.float64)")
        lines.append(f"{name} = tl.where({{inside}}, {text}, {name})")
    return lines


def give(reductions: Sequence[Line], places: Sequence[int], width: int, part: str) -> Iterator[str]:
    """Write down what a program has found in the part of this number."""
    for line, place in zip(reductions, places, strict=True):
        yield f"tl.store(partials + ({part}) * {width} + {place}, {_of_block(line)})"


def known(line: Line, place: int, width: int, real: str) -> str:
    """Read the number of a whole tensor."""
    number = f"tl.load(totals + row * {width} + {place})"
    return f"{line.out} = {number} != 0" if line.word in _TRUTHS else f"{line.out} = {number}.to(tl.{real})"


def total_source(reductions: Sequence[Line], places: Sequence[int], width: int, chunk: int) -> str:
    """The second launch: a program for each tensor."""
    lines = [
        "def total(partials, totals, chunks, BLOCK: tl.constexpr):",
        "    row = tl.program_id(0)",
        "    first, size = tl.load(chunks + 2 * row), tl.load(chunks + 2 * row + 1)",
        f"    count = (size + {chunk - 1}) // {chunk}",
        *(f"    {line}" for line in begin(reductions)),
        "    for start in range(0, count, BLOCK):",
        "        i = start + tl.arange(0, BLOCK)",
    ]
    for line, place in zip(reductions, places, strict=True):
        name = f"of_{line.out}"
        x = f"tl.load(partials + (first + i) * {width} + {place}, mask=i < count, other=0.0)"
        joined = _JOINED.get(line.word, _SUM).format(a=name, x="x")
        lines += [f"        x = {x}", f"        {name} = tl.where(i < count, {joined}, {name})"]
    for line, place in zip(reductions, places, strict=True):
        whole = _WHOLES.get(line.word, "{0}").format("whole")
        lines += [
            f"    whole = {_of_block(line)}",
            f"    tl.store(totals + row * {width} + {place}, {whole})",
        ]
    return "\n".join(lines) + "\n"


def _of_block(line: Line) -> str:
    return _OF_BLOCK.get(line.word, "xp.total({0})").format(f"of_{line.out}")
