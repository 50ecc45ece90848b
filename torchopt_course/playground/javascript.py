"""What the words of a rule and of its coefficients mean in JavaScript: source text, one number at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.rule.number_program import NumberProgram
from ..engines.rule.program import Line, Program

# JavaScript has one kind of number, double precision, and raises no errors: what Python refuses is NaN or an
# infinity there. `pow`, `copysign`, `mod` and `floordiv` are in page/numbers.js.
_TEXTS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "pow": "pow({0}, {1})",
    "neg": "-{0}", "square": "{0} * {0}", "reciprocal": "1 / {0}", "rsqrt": "1 / Math.sqrt({0})",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} === {1}", "ne": "{0} !== {1}",
    "logical_and": "{0} && {1}", "logical_or": "{0} || {1}", "logical_xor": "{0} !== {1}",
    "logical_not": "!{0}",
    "sigmoid": "1 / (1 + Math.exp(-{0}))", "maximum": "Math.max({0}, {1})", "minimum": "Math.min({0}, {1})",
    "clamp": "Math.min(Math.max({0}, {1}), {2})", "where": "{0} ? {1} : {2}",
    "fill": "{1}", "real": "Number({0})",
    "fmod": "{0} % {1}", "mod": "mod({0}, {1})", "floordiv": "floordiv({0}, {1})",
    "copysign": "copysign({0}, {1})", "atan2": "Math.atan2({0}, {1})",
}  # fmt: skip
_OF_MATH = (
    "abs sign sqrt exp expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh floor ceil trunc"
)
WORDS = _TEXTS | {word: f"Math.{word}({{0}})" for word in _OF_MATH.split()}


def rule_text(owner: str, program: Program, states: Sequence[str]) -> str:
    """A rule as a function of JavaScript, from p, g, the states and the coefficients to the new p and states.

    Args:
        owner: whose rule it is, for error messages.
        program: the rule as it was read.
        states: the names of the states that are kept, in order.

    Raises:
        NotImplementedError: a word that has no JavaScript.
    """
    coefficients = {name for line in program.arithmetic for name in line.operands} | set(program.numbers)
    given = sorted(name for name in coefficients if isinstance(name, str) and name.startswith("number_"))
    lines = [f"  const {name} = coefficients[{json.dumps(name.removeprefix('number_'))}];" for name in given]
    lines += [f"  const state_{name} = states[{json.dumps(name)}];" for name in states]
    lines += [f"  const {line.out} = {_line(owner, line)};" for line in (*program.arithmetic, *program.lines)]
    p, *new = program.results
    results = ", ".join(f"{json.dumps(name)}: {out}" for name, out in zip(states, new, strict=True))
    return "\n".join(
        ["function (p, g, states, coefficients) {", *lines, f"  return [{p}, {{{results}}}];", "}"]
    )


def coefficients_text(owner: str, program: NumberProgram) -> str:
    """Coefficients as a function of JavaScript; it returns ``null`` where the program does not hold.

    Args:
        owner: whose coefficients they are, for error messages.
        program: the coefficients as they were read.

    Raises:
        NotImplementedError: a word that has no JavaScript.
    """
    registers = [f"r{i}" for i in range(len(program.inputs))] + [number(value) for value in program.constants]
    lines = [
        f"  if (options[{key(place)}] !== {json.dumps(value)}) return null;"
        for place, value in program.fixed.items()
        if not isinstance(value, type)
    ]
    lines += [f"  const r{i} = options[{key(place)}];" for i, place in enumerate(program.inputs)]
    computed = []
    for operation in program.operations:
        name = f"r{len(registers)}"
        lines.append(
            f"  const {name} = {_text(owner, operation.word, [registers[i] for i in operation.operands])};"
        )
        computed.append(name)
        registers.append(name)
    if computed:
        lines.append(f"  if (![{', '.join(computed)}].every(Number.isFinite)) return null;")
    for condition in program.conditions:
        text = _text(owner, condition.word, [registers[i] for i in condition.operands])
        lines.append(f"  if ({text if not condition.holds else f'!({text})'}) return null;")
    results = ", ".join(
        f"{json.dumps(name)}: {json.dumps(r) if r is None or type(r) is bool else registers[r]}"
        for name, r in program.results.items()
    )
    return "\n".join(["function (options) {", *lines, f"  return {{{results}}};", "}"])


def key(place: tuple[str, int | None]) -> str:
    """The name that the page has for an option, or for one number of it, as text of JavaScript."""
    name, i = place
    return json.dumps(name if i is None else f"{name}.{i}")


def choices_key(states: Sequence[str], coefficients: Mapping[str, Any]) -> str:
    """What a rule was read for: the states that are kept, and the coefficients that are no numbers."""
    chosen = {name: value for name, value in coefficients.items() if value is None or type(value) is bool}
    return json.dumps([list(states), chosen], separators=(",", ":"), ensure_ascii=False)


def number(value: float) -> str:
    """A number as text of JavaScript: the same number."""
    if math.isnan(value):
        return "NaN"
    text = "Infinity" if math.isinf(value) else repr(abs(float(value)))
    return f"(-{text})" if math.copysign(1.0, value) < 0 else text


def _line(owner: str, line: Line) -> str:
    operands = [name if isinstance(name, str) else number(name) for name in line.operands]
    return _text(owner, line.word, operands)


def _text(owner: str, word: str, operands: Sequence[str]) -> str:
    if word not in WORDS:
        raise NotImplementedError(f"{owner} uses {word}, for which the playground has no JavaScript")
    return WORDS[word].format(*operands)
