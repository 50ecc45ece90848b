"""The parameters of a group that are no plain tensors, or whose rule is no program: one by one, by torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..bucket import Coefficients, GroupOptions, Specialize, Update
from ..local import LocalGroup
from . import one_by_one


class Rest:
    """Those that no bucket takes. Nothing is known of them: each step looks at them anew.

    Attributes:
        positions: where they stand in ``group["params"]``.
        final: those that stay here as long as the plan does, whatever becomes of the tensors.
        ages: the steps that each has taken, where steps are not counted: 0 or 1 for "some".
    """

    ENGINE = "eager engine"

    def __init__(self, *, counts_steps: bool) -> None:
        self._counts_steps = counts_steps
        self.positions: list[int] = []
        self.final: set[int] = set()
        self.ages: dict[int, int] = {}

    def prepare(
        self, local: LocalGroup, options: GroupOptions, coefficients: Coefficients, specialize: Specialize
    ) -> Iterator[Update]:
        """What the coming step has to do for them; nothing is changed before the updates are called."""
        by_age: dict[Any, list[int]] = {}
        for i in self.positions:
            if local.grads[i] is not None:
                by_age.setdefault(self._age(local, i), []).append(i)
        for age, positions in by_age.items():
            values = coefficients(age)
            specialization = specialize(values)
            for i in positions:
                own = local.state[local.params[i]] if options.states else {}
                new = one_by_one.compute(
                    specialization,
                    local.params[i],
                    local.grads[i],  # type: ignore[arg-type]
                    {name: own[name] for name in options.states},
                    values,
                    differentiable=options.differentiable,
                )
                yield partial(one_by_one.write, new)
            steps = [local.state[local.params[i]]["step"] for i in positions] if self._counts_steps else []
            yield partial(self._count, positions, steps)

    def _age(self, local: LocalGroup, i: int) -> Any:
        """How many steps parameter i has taken."""
        if not self._counts_steps:
            return self.ages[i]
        step = local.state[local.params[i]]["step"]
        # A step on a device is not read: that would make the host wait for it.
        return step.item() if step.is_cpu else step

    def _count(self, positions: Sequence[int], steps: Sequence[Tensor]) -> None:
        for step in steps:
            step += 1
        self.ages |= dict.fromkeys(positions, 1)
