"""A program for whole tensors, where each operation goes through memory: as few of them as torch allows.

torch adds a product or a quotient in one operation, ``x + s*a*b`` and ``x + s*a/b``, without memory for it.
"""

from __future__ import annotations

from dataclasses import replace

from ..rule.program import Line, Number, Program

# The words of joined operations: `x + s*a` and `x + s*a*b`, `x + s*a/b`.
PRODUCT, QUOTIENT = "add_product", "add_quotient"


class Joined:
    """A program with products and quotients that are added in one operation.

    Args:
        program: what a rule does.

    Attributes:
        lines: the operations, in order; :data:`PRODUCT` and :data:`QUOTIENT` are words besides those in
            :mod:`..rule.words`, and their last operand is the one number of all that are multiplied.
        results: the registers of the new ``p`` and states.
        scales: the registers of those numbers, each with its factors.
    """

    def __init__(self, program: Program) -> None:
        self.lines, self.results = program.lines, program.results
        self.scales: dict[str, tuple[str | Number, ...]] = {}
        self._numbers = {*program.numbers}
        for i, line in enumerate(self.lines):
            if line.word in ("add", "sub"):
                self.lines = [*self.lines[:i], self._joined(line), *self.lines[i + 1 :]]
        self.lines = Program(self.lines, self.results).lines
        reads = {name for line in self.lines for name in line.operands}
        self.scales = {name: factors for name, factors in self.scales.items() if name in reads}

    def is_tensor(self, operand: str | Number) -> bool:
        return isinstance(operand, str) and operand not in self._numbers and operand not in self.scales

    def _joined(self, line: Line) -> Line:
        """Make ``x + s*a*b`` and ``x - s*a/b`` one operation, if nobody else wants the second term."""
        x, term = line.operands
        if line.word == "add" and not self._is_private(term):
            x, term = term, x
        if not self.is_tensor(x) or not self._is_private(term):
            return line
        factors: list[str | Number] = []  # numbers and tensors that are multiplied
        divisor: str | Number | None = None
        pending = [term]
        while pending:
            made = self._made(pending[-1])
            if made is not None and made.word == "mul" and self._is_private(pending[-1]):
                pending[-1:] = made.operands
            elif (
                made is not None
                and made.word == "div"
                and divisor is None
                and self._is_private(pending[-1])
                and self.is_tensor(made.operands[1])
            ):
                divisor = made.operands[1]
                pending[-1:] = made.operands[:1]
            else:
                factors.insert(0, pending.pop())
        tensors = [factor for factor in factors if self.is_tensor(factor)]
        scale = f"scale_{line.out}"
        if divisor is None and len(tensors) in (1, 2):
            word = PRODUCT
        elif divisor is not None and len(tensors) == 1:
            word, tensors = QUOTIENT, [*tensors, divisor]
        else:
            return line
        sign = (-1,) if line.word == "sub" else ()
        self.scales[scale] = (*(factor for factor in factors if not self.is_tensor(factor)), *sign)
        return replace(line, word=word, operands=(x, *tensors, scale))

    def _made(self, register: str | Number) -> Line | None:
        return next((line for line in self.lines if line.out == register), None)

    def _is_private(self, register: str | Number) -> bool:
        """Made by one operation and read by one."""
        reads = sum(line.operands.count(register) for line in self.lines) + self.results.count(str(register))
        return self._made(register) is not None and reads == 1
