"""What the words of a rule mean in a kernel for the CPU: source text, for numba and one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..rule.program import Line

# `real` gives a number the precision of the arrays: numba would compute with Python's in double precision.
_TEXTS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "pow": "power({0}, {1})",
    # (As torch's: that of NaN is zero. numpy's is NaN.)
    "sign": "real({0} > real(0)) - real({0} < real(0))",
    "neg": "-{0}", "square": "{0} * {0}", "reciprocal": "real(1) / {0}", "rsqrt": "real(1) / sqrt({0})",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}",
    "logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} ^ {1}",
    "logical_not": "not {0}",
    "sigmoid": "real(1) / (real(1) + exp(-{0}))",
    "clamp": "minimum(maximum({0}, {1}), {2})", "where": "{1} if {0} else {2}",
    "fill": "{1}", "real": "real({0})",
}  # fmt: skip
# These are numpy's. (Not its `where`: numba would make an array of each number.)
FUNCTIONS = {
    name: getattr(np, name)
    for name in (
        "abs",
        "sqrt",
        "exp",
        "log",
        "sin",
        "cos",
        "tanh",
        "floor",
        "ceil",
        "maximum",
        "minimum",
    )
}
# What the texts refer to by name, besides `real`.
NAMES: dict[str, Any] = {**FUNCTIONS, "inf": np.inf, "nan": np.nan}


def text(line: Line) -> str:
    """A line of a program as a line of a kernel."""
    template = (
        _TEXTS.get(line.word) or f"{line.word}({', '.join(f'{{{i}}}' for i in range(len(line.operands)))})"
    )
    operands = [name if isinstance(name, str) else f"real({float(name)!r})" for name in line.operands]
    exponent = line.operands[-1]
    if line.word == "pow" and isinstance(exponent, int):
        operands[1] = f"({abs(exponent)})"  # a whole one is a few products
        # Of a negative one numba's own way raises an error where x is 0, which ends the kernel in the middle.
        template = "real(1) / {0} ** {1}" if exponent < 0 else "{0} ** {1}"
    return f"{line.out} = {template.format(*operands)}"
