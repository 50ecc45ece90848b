"""The parameters of a group that are no plain tensors, or whose rule is no program: one by one, by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from ..bucket import Coefficients, GroupOptions, Part, Specialize, Update
from ..eight_bits import keys_of
from ..local import LocalGroup
from ..rule.messages import say_where
from ..rule.parsed import Specialization
from ..rule.words import TENSORS
from . import one_by_one, wide
from .search import Row, part_of


class Rest:
    """Those that no bucket takes. Nothing is known of them: each step looks at them anew.

    Attributes:
        positions: where they stand in ``group["params"]``.
        final: those that stay here as long as the plan does, whatever becomes of the tensors.
        ages: the steps that each has taken, where steps are not counted: 0 or 1 for "some".
    """

    ENGINE: ClassVar[str] = "eager engine"
    TAKES_ALL: ClassVar[bool] = False  # whether no engine is asked first

    def __init__(self, *, counts_steps: bool) -> None:
        self._counts_steps = counts_steps
        self.positions: list[int] = []
        self.final: set[int] = set()
        self.ages: dict[int, int] = {}

    def prepare(
        self,
        local: LocalGroup,
        options: GroupOptions,
        coefficients: Coefficients,
        specialize: Specialize,
        where: Callable[[int], str],
    ) -> Iterator[Update]:
        """What the coming step has to do for them; nothing is changed before the updates are called.

        Args:
            where: says which parameter stands at a position.
        """
        for age, positions in self._by_age(local).items():
            values = coefficients(age)
            for new in self._compute(local, options, positions, specialize(values), values, where):
                yield partial(one_by_one.write, new)
            steps = [local.state[local.params[i]]["step"] for i in positions] if self._counts_steps else []
            yield partial(self._count, positions, steps)

    def search(
        self,
        number: int,
        local: LocalGroup,
        options: GroupOptions,
        coefficients: Coefficients,
        specialize: Specialize,
    ) -> list[Part]:
        """What they give to numbers over several tensors, in the search of that number."""
        parts = []
        for age, positions in self._by_age(local).items():
            values = coefficients(age)
            specialization = specialize(values)
            rows = (self._row(local, options, specialization, i) for i in positions)
            words = TENSORS if options.rounding is None else wide.EXACT
            parts.append(part_of(number, specialization, values, rows, words))
        return parts

    def _row(self, local: LocalGroup, options: GroupOptions, specialization: Specialization, i: int) -> Row:
        """A parameter as its rule sees it."""
        param, grad = local.params[i], local.grads[i]
        assert grad is not None, "it is stepped"
        own = local.state.get(param, {})
        states = {name: own[keys_of(own, name)[0]] for name in specialization.states}
        if options.rounding is not None:
            real, wide_ones = wide.widened(own, options.rounding, param, states)
            if real is not None:
                param, grad = wide_ones.pop("p"), grad.to(real)
                states = wide_ones
        return Row(param, one_by_one.widened(grad, param), states)

    def ages_of(self, local: LocalGroup) -> list[Any]:
        """The numbers of steps that parameters have taken that have a gradient."""
        return [*self._by_age(local)]

    def _by_age(self, local: LocalGroup) -> dict[Any, list[int]]:
        """Those that have a gradient, by the steps that they have taken."""
        by_age: dict[Any, list[int]] = {}
        for i in self.positions:
            if local.grads[i] is not None:
                by_age.setdefault(self._age(local, i), []).append(i)
        return by_age

    def _compute(
        self,
        local: LocalGroup,
        options: GroupOptions,
        positions: Sequence[int],
        specialization: Specialization,
        values: Mapping[str, Any],
        where: Callable[[int], str],
    ) -> Iterator[list[one_by_one.Write]]:
        """The new values of parameters that have taken equally many steps."""
        for i in positions:
            own = local.state.get(local.params[i], {})
            compute = one_by_one.compute
            if options.rounding is not None:
                keys = None if local.chance is None else local.chance.keys([i])[0].tolist()
                compute = partial(wide.compute, own, options.rounding, keys)
            states = {name: own[keys_of(own, name)[0]] for name in options.states}
            param, grad = local.params[i], local.grads[i]
            assert grad is not None, "it is stepped"
            try:
                new = compute(
                    specialization, param, grad, states, values, differentiable=options.differentiable
                )
            except Exception as error:
                say_where(error, where(i))
                raise
            yield new

    def _age(self, local: LocalGroup, i: int) -> Any:
        """How many steps parameter i has taken."""
        if not self._counts_steps:
            return self.ages[i]
        step = local.state[local.params[i]]["step"]
        if step.is_cpu:
            return step.item()
        # On a device it is not read: that would make the host wait. (Apple's knows no double precision.)
        return step if step.device.type == "mps" else step.double()

    def _count(self, positions: Sequence[int], steps: Sequence[Tensor]) -> None:
        for step in steps:
            step += 1
        self.ages |= dict.fromkeys(positions, 1)
