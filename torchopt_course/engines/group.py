"""One parameter group: what the engines see of it, and which engine takes which of its parameters.

Making a plan is slow and careful, following it is fast: before each step the group is asked whether its
plan still :meth:`~Group.holds`. Whatever is not plainly right for a fast engine goes to a slower one, with
a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import ENGINES
from .assignment import Assignment, Declared
from .bucket import Bucket, Coefficients, Part, Scaling, Specialize, Update
from .counted import Reader
from .eight_bits import keys_of
from .local import is_distributed, local_group
from .native.compiler import CompilationError
from .rule.parsed import Specialization
from .several import Found, NotFound
from .storage import Chance

Answer = TypeVar("Answer")

# A state that was made for a parameter: (group, position, name).
Created = tuple[int, int, str]


class Group(Assignment):
    """The parameter group at a place of ``optimizer.param_groups``, planned for as long as nothing changes.

    Parameters may come without a gradient in any step and be left out of it: which ones they are does not
    change the plan, as long as it has met them before.

    Args:
        index: the place.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._reader = Reader()
        self._forget()

    # -- before the step -------------------------------------------------------------------------------

    def see(self, optimizer: Declared, grads: list[Tensor | None], interceptor: str | None) -> None:
        """Take note of what the group is like now."""
        group = optimizer.param_groups[self.index]
        self.options = optimizer._group_options(group, interceptor)
        # torch itself runs what is not elementwise, on the whole of a DTensor.
        if not optimizer._parsed_rule.is_read and is_distributed({*map(type, group["params"])}):
            optimizer._try_formula(group)  # whether it is elementwise is known once it has been read
        elementwise = optimizer._parsed_rule.is_elementwise
        self.local = local_group(group["params"], grads, optimizer.state, in_parts=elementwise)

    def holds(self) -> bool:
        """Whether the group can be stepped as planned; gradients of another memory layout are copied."""
        local = self.local
        if self._planned != self.options or len(local.params) != self._count:
            return False
        if any(local.grads[i] is not None for i in self.unknown):
            return False
        if (self._originals is None) != (local.originals is None):
            return False
        if self._originals is not None and local.originals is not None:
            ids, same_states = self._originals
            if list(map(id, local.originals[0])) != ids or not same_states.are(local.originals[1]):
                return False
            try:
                for bucket in self.buckets:
                    bucket.guards.expect([local.params[i] for i in bucket.positions], local.state)
            except KeyError:  # a state is missing
                return False
        return all(map(self._look, self.buckets)) and all(map(self._belongs_to_the_rest, self.rest.positions))

    def _belongs_to_the_rest(self, position: int) -> bool:
        if self.local.grads[position] is None:
            return True
        if self.rest.TAKES_ALL:
            return self._is_complete(position)
        candidate = self._candidate(position)
        if candidate is None:
            return False
        return position in self.rest.final or not any(
            engine.serves(candidate.param.device.type) and engine.refuses(candidate, self.options) is None
            for engine in ENGINES
        )

    # -- the plan --------------------------------------------------------------------------------------

    def check(self, optimizer: Declared, grads: list[Tensor | None], interceptor: str | None) -> None:
        """Refuse gradients and states that do not fit; sparse gradients are made dense where that is asked.

        Raises:
            RuntimeError: with the parameter. Nothing has been changed.
        """
        group = optimizer.param_groups[self.index]
        grads = optimizer._without_sparse(group, grads)
        self.see(optimizer, grads, interceptor)
        optimizer._refuse_misfits(self.index, grads)

    def plan(self, optimizer: Declared, created: list[Created], interceptor: str | None) -> None:
        """Complete the states and decide anew which engine takes which parameter.

        ``created`` gets the states that were made.
        """
        group = optimizer.param_groups[self.index]
        names_of_all, firsts, grads = set(self.options.states), set(), self.local.whole_grads
        without: dict[int, frozenset[str]] = {}
        for position, (param, grad) in enumerate(zip(group["params"], grads, strict=True)):
            # The states of one that is left out today are brought into its memory layout all the same.
            if grad is not None or optimizer._has_states(param, group):
                names = optimizer.complete_state(param, group)
                # An option that is switched on late brings a new state to a parameter that has others.
                own = optimizer.state.get(param, {})
                keys = {name: keys_of(own, name) for name in names_of_all}
                without[position] = frozenset(name for name in names_of_all if not keys[name])
                kept = {key for several in keys.values() for key in several}
                if kept and kept.issubset(names):
                    firsts.add(position)
                created += [(self.index, position, name) for name in names]
        self.see(optimizer, grads, interceptor)
        self._decide(optimizer, firsts, without)

    # -- the step --------------------------------------------------------------------------------------

    def how(
        self, optimizer: Declared, known: Found, *, is_last: bool = False
    ) -> tuple[Coefficients, Specialize]:
        """The coefficients, with what is known of several tensors, and the specializations they ask for."""
        group = optimizer.param_groups[self.index]
        coefficients = optimizer._coefficients_after(group)
        in_parts, maximize = bool(self.local.wrappers), bool(group["maximize"])
        of_rule = partial(optimizer._parsed_rule.specialize, self.options.states, maximize, in_parts=in_parts)

        def with_known(age: Any) -> Mapping[str, Any]:
            return {**coefficients(age), **known}

        def specialize(values: Mapping[str, Any]) -> Specialization:
            given = {name: value for name, value in values.items() if name not in known} if known else values
            specialization = of_rule(given)
            wanted = [one.key for search in specialization.searches for one in search.wanted]
            if is_last and not known.keys() >= {*wanted}:
                raise NotFound
            return specialization

        return with_known if known else coefficients, specialize

    def search(self, number: int, optimizer: Declared, known: Found, scaling: Scaling | None) -> list[Part]:
        """What the group gives to numbers over several tensors, in the search of that number."""
        how = self.how(optimizer, known)
        parts = self._ask(lambda bucket: bucket.search(number, self.local, *how, scaling))
        rest = self.rest.search(number, self.local, self.options, *how)
        return [part for several in (*parts, rest) for part in several]

    def prepare(self, optimizer: Declared, known: Found, scaling: Scaling | None) -> list[Update]:
        """What the coming step has to do; nothing is changed before the updates are called.

        Args:
            known: numbers over several tensors, by the keys of what was wanted.

        Raises:
            NotFound: one that is needed is not known.
        """
        group = optimizer.param_groups[self.index]
        how = coefficients, specialize = self.how(optimizer, known, is_last=True)
        by_chance = self.options.rounding == "stochastic"
        if by_chance:
            chance = Chance.of(group, self.index)
            self.local = self.local._replace(chance=chance)
        if not known and any(bucket.counts_on_device for bucket in self.buckets):
            self.local = self.local._replace(counted=self._reader.now(optimizer, group))
        updates: list[Update] = self._ask(lambda bucket: bucket.prepare(self.local, *how, scaling))
        self._rest_present = [i for i in self.rest.positions if self.local.grads[i] is not None]
        where = partial(optimizer._where, self.index)
        updates += self.rest.prepare(self.local, self.options, coefficients, specialize, where)
        if scaling is not None:
            # A kernel has unscaled the copy that it got of a gradient of another memory layout.
            for param, grad in zip(self.local.params, self.local.grads, strict=True):
                if grad is not None and param.grad is not None and grad is not param.grad:
                    updates.append(partial(param.grad.copy_, grad))
        if by_chance and any(grad is not None for grad in self.local.grads):
            updates.append(partial(group.__setitem__, "rounding_step", chance.step + 1))
        if self.local.wrappers:
            updates.append(partial(torch.autograd.graph.increment_version, self.local.wrappers))
        return updates

    def _ask(self, question: Callable[[Bucket], Answer]) -> list[Answer]:
        """Ask each bucket; what an engine turns out not to be able to do goes to a slower one."""
        answers: list[Answer] = []
        while len(answers) < len(self.buckets):
            bucket = self.buckets[len(answers)]
            try:
                answers.append(question(bucket))
            except CompilationError as error:
                self.buckets.pop(len(answers))
                ages = bucket.guards.ages.tolist()
                if not self._counts_steps:
                    self.rest.ages |= {i: int(age) for i, age in zip(bucket.positions, ages, strict=True)}
                self._give_up(type(bucket), bucket.positions, error)
        return answers

    # -- reports ---------------------------------------------------------------------------------------

    @property
    def is_distributed(self) -> bool:
        """Whether it is planned for shards of distributed tensors."""
        return self._originals is not None

    @property
    def has_moved(self) -> bool:
        """Whether tensors have come to other places, which may be those of others."""
        return any(bucket.has_moved for bucket in self.buckets)

    @property
    def left_over(self) -> dict[int, str]:
        """Why parameters that have a gradient in the coming step go to no fused engine, by position."""
        slow = [i for bucket in self.buckets if not bucket.IS_FUSED for i in bucket.present]
        why = "its rule takes whole tensors"
        return {i: self.reasons.get(i, why) for i in sorted([*slow, *self._rest_present])}

    @property
    def engines(self) -> dict[int, tuple[str, str]]:
        """For each parameter of the last step, by position: which engine took it, and why no faster one."""
        took = {i: bucket.ENGINE for bucket in self.buckets for i in bucket.present}
        took |= dict.fromkeys(self._rest_present, self.rest.ENGINE)
        return {i: (engine, self.reasons.get(i, "")) for i, engine in took.items()}

    @property
    def ages(self) -> list[Any]:
        """How many steps parameters have taken that have a gradient; each bucket's largest number."""
        buckets = [bucket.age for bucket in self.buckets if bucket.present]
        return [*buckets, *self.rest.ages_of(self.local)]

    @property
    def needs_host_sync(self) -> bool:
        """Whether the host must know if a gradient has overflowed: not every engine can find out itself."""
        return bool(self.rest.positions) or not all(bucket.heeds_scaling for bucket in self.buckets)
