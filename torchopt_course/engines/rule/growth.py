"""How fast the results of a rule grow with the gradient: what is a square needs twice the range."""

from __future__ import annotations

from .program import Number, Program


def growth(program: Program) -> list[float]:
    """By which power of a large gradient each result grows, if all states are zero before.

    Of Adam's new ``p`` and states these are 0, 1 and 2: ``exp_avg_sq`` is a mean of squares.
    """
    powers: dict[str, float] = {"g": 1.0}
    for line in program.lines:
        powers[line.out] = _grown(line.word, line.operands, powers)
    return [powers.get(name, 0.0) for name in program.results]


def _grown(word: str, operands: tuple[str | Number, ...], powers: dict[str, float]) -> float:
    grown = [powers.get(operand, 0.0) if isinstance(operand, str) else 0.0 for operand in operands]
    if word == "mul":
        return sum(grown)
    if word == "div":
        return grown[0] - grown[1]
    if word == "pow":
        exponent = operands[1]
        return 0.0 if isinstance(exponent, str) else grown[0] * exponent
    if word in _POWERS:
        return _POWERS[word] * grown[0]
    return max(grown) if word in _LARGEST_COUNTS else 0.0


_POWERS = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
_LARGEST_COUNTS = frozenset({
    "add", "sub", "neg", "abs", "maximum", "minimum", "clamp", "where", "sum", "mean", "norm", "amax", "amin",
})  # fmt: skip
