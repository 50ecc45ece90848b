"""The foreach engine: the rule over lists of tensors, each operation one ``torch._foreach_*`` call.

For devices without a fused engine, and for ``foreach=True``. The rule is traced once (``torch.fx``) into a
straight line of operations. Knowing the whole line, the engine knows when a value is used for the last time:
it writes results over what nobody needs any more, parameters and states included, and it joins ``x + s*a*b``
and ``x + s*a/b`` into one operation. Long lists are taken in portions, so that intermediate results never
hold more than a fraction of the parameters' memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .eager import as_real, over_torch
from .namespaces import lists
from .rules import Variant

# Of all elements, what part is computed at a time (but no less than the second). Intermediate results of a
# rule are two or three lists at most: in portions, they stay below the memory of one list of all.
PORTION, LEAST_PORTION = 1 / 4, 1 << 16


@dataclass
class Line:
    """One operation of a rule: ``out = function(*operands)``.

    Attributes:
        out: the register of the result.
        function: what is applied: an operation on tensors, or one of those joined in ``namespaces.lists``.
        operands: registers (``str``) and numbers.
        dying: the registers that nobody reads afterwards.
    """

    out: str
    function: Callable[..., Any]
    operands: list[Any]
    dying: frozenset[str] = frozenset()


class Program:
    """A rule as a straight line of operations.

    Args:
        variant: the rule with its options fixed.

    Attributes:
        lines: the operations, in order.
        results: the registers of the new ``p`` and states.

    Raises:
        TypeError: the rule does something that depends on the values of its tensors.
    """

    def __init__(self, variant: Variant) -> None:
        self.lines, self.results = _lines(_trace(variant))
        self._numbers = {*variant.scalars}
        for line in self.lines:
            if line.function in (operator.add, operator.sub):
                self._join(line)
        self._drop_unused()

    def _join(self, line: Line) -> None:
        """Make ``x + s*a*b`` and ``x - s*a/b`` one operation, if nobody else wants the second term."""
        x, term = line.operands
        if line.function is operator.add and not self._is_private(term):
            x, term = term, x
        if not self._is_list(x) or not self._is_private(term):
            return
        factors: list[Any] = []  # numbers and lists that are multiplied
        divisor = None
        pending = [term]
        while pending:
            made = self._made(pending[-1])
            if made is not None and made.function is operator.mul and self._is_private(pending[-1]):
                pending[-1:] = made.operands
            elif (
                made is not None
                and made.function is operator.truediv
                and divisor is None
                and self._is_private(pending[-1])
                and self._is_list(made.operands[1])
            ):
                divisor = made.operands[1]
                pending[-1:] = made.operands[:1]
            else:
                factors.insert(0, pending.pop())
        tensors = [factor for factor in factors if self._is_list(factor)]
        sign = -1 if line.function is operator.sub else 1
        if divisor is None and len(tensors) in (1, 2):
            line.function, line.operands = lists.add_product, [x, *factors, sign]
        elif divisor is not None and len(tensors) == 1:
            line.function, line.operands = lists.add_quotient, [x, *factors, divisor, sign]

    def _drop_unused(self) -> None:
        needed = set(self.results)
        kept = []
        for line in reversed(self.lines):
            if line.out in needed:
                reads = {name for name in line.operands if isinstance(name, str)}
                line.dying = frozenset(reads - needed)
                needed |= reads
                kept.append(line)
        self.lines = kept[::-1]

    def _made(self, register: Any) -> Line | None:
        return next((line for line in self.lines if line.out == register), None)

    def _is_private(self, register: Any) -> bool:
        """Made by one operation and read by one."""
        reads = sum(line.operands.count(register) for line in self.lines) + self.results.count(register)
        return self._made(register) is not None and reads == 1

    def _is_list(self, register: Any) -> bool:
        made = self._made(register)
        if made is not None:
            return any(map(self._is_list, made.operands))
        return isinstance(register, str) and register not in self._numbers


def _trace(variant: Variant) -> torch.fx.Graph:
    arguments = ", ".join(variant.arguments(state="{}", number="{}"))
    source = (
        f"def traced({', '.join(('p', 'g', *variant.states, *variant.scalars))}):\n"
        f"    {', '.join(variant.results('new_{}'))} = "
        f"rule(p, {'-g' if variant.maximize else 'g'}, {arguments})\n"
        f"    return [{', '.join(['new_p', *(f'new_{name}' for name in variant.states)])}]\n"
    )
    names: dict[str, Any] = {"rule": over_torch(variant.formula.rule)}
    exec(source, names)
    try:
        return torch.fx.Tracer().trace(names["traced"])
    except torch.fx.proxy.TraceError as error:
        raise TypeError(f"{variant.formula.owner}.rule cannot run over lists of tensors: {error}") from error


def _lines(graph: torch.fx.Graph) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    for node in graph.nodes:
        if node.op == "output":
            return lines, _names(node.args[0])
        if node.op == "call_method":
            lines.append(Line(node.name, getattr(Tensor, node.target), _names(node.args)))
        elif node.op == "call_function":
            function = _with_keywords(node.target, node.kwargs) if node.kwargs else node.target
            lines.append(Line(node.name, function, _names(node.args)))
    raise AssertionError("a traced function returns something")


def _names(operands: Sequence[Any]) -> list[Any]:
    return [_register(item) if isinstance(item, torch.fx.Node) else item for item in operands]


def _register(node: torch.fx.Node) -> str:
    # The tracer renames an argument that is called like a builtin, `sum` for one.
    return str(node.target) if node.op == "placeholder" else node.name


def _with_keywords(function: Callable[..., Any], keywords: Mapping[str, Any]) -> Callable[..., Any]:
    if any(isinstance(value, torch.fx.Node) for value in keywords.values()):
        raise TypeError(f"{function} is called with tensors by keyword; pass them by position")
    return lambda *operands: function(*operands, **keywords)


def update(
    variant: Variant,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    coefficients: Mapping[str, Any],
) -> None:
    """Apply a rule to many parameters of one device and dtype, and their states, in place.

    Args:
        variant: the rule with its options fixed.
        params, grads: tensors of the same shapes.
        states: for each parameter the states that ``variant`` keeps, by name.
        coefficients: the rule's coefficients, by name; numbers or 0-d tensors.
    """
    traced = program(variant)
    columns = [params, grads, *([own[name] for own in states] for name in variant.states)]
    numbers = {
        name: value.item() if isinstance(value := coefficients[name], Tensor) else value
        for name in variant.scalars
    }
    for portion in _portions([[as_real(tensor) for tensor in column] for column in columns]):
        _run(traced, dict(zip(("p", "g", *variant.states), portion, strict=True)), numbers)


@cache
def program(variant: Variant) -> Program:
    """A variant's program, traced once."""
    return Program(variant)


def _portions(columns: list[list[Tensor]]) -> Iterator[list[list[Tensor]]]:
    """Cut all lists alike, large tensors along their first dimension, into portions of similar size."""
    most = max(LEAST_PORTION, int(PORTION * sum(tensor.numel() for tensor in columns[0])))
    portion: list[list[Tensor]] = [[] for _ in columns]
    filled = 0
    for tensors in zip(*columns, strict=True):
        for pieces in zip(*(_pieces(tensor, most) for tensor in tensors), strict=True):
            if filled and filled + pieces[0].numel() > most:
                yield portion
                portion, filled = [[] for _ in columns], 0
            for column, piece in zip(portion, pieces, strict=True):
                column.append(piece)
            filled += pieces[0].numel()
    if filled:
        yield portion


def _pieces(tensor: Tensor, most: int) -> Sequence[Tensor]:
    if tensor.numel() <= most or tensor.shape[0] == 1:
        return [tensor]
    rows = max(1, most * tensor.shape[0] // tensor.numel())
    return torch.split(tensor, rows)


# -- running a program ---------------------------------------------------------------------------------


def _run(traced: Program, targets: dict[str, list[Tensor]], numbers: Mapping[str, float]) -> None:
    """Run a program on lists of tensors and write the results over parameters and states."""
    registers: dict[str, Any] = {**targets, **numbers}
    for line in traced.lines:
        operands = [registers[name] if isinstance(name, str) else name for name in line.operands]
        # Memory that may be overwritten: of anything that is no longer needed but the gradient.
        free = [isinstance(name, str) and name in line.dying and name != "g" for name in line.operands]
        registers[line.out] = lists.apply(line.function, operands, free)
        for name in line.dying:
            del registers[name]
    written = [target for name, target in targets.items() if name != "g"]
    results = [registers[name] for name in traced.results]
    # A result may stand in the memory of another target, and would be gone when that one is written.
    results = [
        [tensor.clone() for tensor in result]
        if any(result is other for other in written if other is not own)
        else result
        for own, result in zip(written, results, strict=True)
    ]
    for own, result in zip(written, results, strict=True):
        if result is not own:
            torch._foreach_copy_(own, result)
