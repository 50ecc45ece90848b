"""Which operation of a function has a wrong derivative: each is tried on its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..autograd.traced import Value
from .comparison import Comparison
from .problem import Problem


def culprit(problem: Problem, k: int, numerical: bool) -> str | None:
    """The first operation that is wrong on its own: its VJP, its JVP, or a derivative of these."""
    operations = problem.operations
    for count, operation in enumerate(operations):
        op, args = operation.op, operation.args
        for i in operation.moving:
            if not (isinstance(args[i], Tensor) and args[i].is_floating_point()):
                continue

            def alone(x: Value, op: Any = op, args: tuple[Value, ...] = args, i: int = i) -> Value:
                return op(*args[:i], x, *args[i + 1 :])

            try:
                fault = _fault(Problem(alone, (args[i],), problem.seed), k, numerical)
            except NotImplementedError:
                continue
            if fault:
                name = op.parameters[min(i, len(op.parameters) - 1)]
                place = f"operation {count + 1} of {len(operations)}, argument {name!r}"
                return f"the {fault} of {op} is wrong ({place})"
    return None


def _fault(problem: Problem, order: int, numerical: bool) -> str | None:
    """What is wrong with a single operation."""
    for k in range(1, order + 1):
        comparison = Comparison(problem, k, None, numerical)
        found = comparison.first_disagreement()
        if found is not None:
            report = comparison.at(found.leaf, found.element)
            if report.special:
                return None
            if k > 1:
                return f"derivative of order {k}"
            return "JVP" if odd_ones(report.values, report.margins) == ["forward"] else "VJP"
    return None


def odd_ones(values: dict[str, float], margins: dict[str, float]) -> list[str]:
    """The ways that differ from most others, or from finite differences if there is no majority."""

    def close(a: str, b: str) -> bool:
        x, y = values[a], values[b]
        return x == y or (x != x and y != y) or abs(x - y) <= margins[a] + margins[b]

    groups: list[list[str]] = []
    for name in values:
        for group in groups:
            if close(name, group[0]):
                group.append(name)
                break
        else:
            groups.append([name])
    if len(groups) == 1:
        return []
    # Torch and finite differences are the judges; where they agree, or only one is there, that is the truth.
    judges = [group for group in groups if {"torch", "numerical"} & set(group)]
    right = max(groups, key=len) if len(judges) != 1 else judges[0]
    return [name for name in values if name not in right]
