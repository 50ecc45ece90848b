"""One parameter group: what the engines see of it, and which engine takes which of its parameters.

Making a plan is slow and careful, following it is fast: before each step the group is asked whether its
plan still :meth:`~Group.holds`. Whatever is not plainly right for a fast engine goes to a slower one, with
a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from . import ENGINES
from .bucket import Bucket, Candidate, Coefficients, GroupOptions, Scaling, Update
from .layout import in_layout_of, is_sparse
from .local import LocalGroup, local_group
from .native.compiler import CompilationError, NoWord
from .native.frame import GRADIENT_LAYOUT, HOLDS
from .operations.rest import Rest
from .operations.whole import Whole
from .rule.parsed import ParsedRule
from .rule.whole import WholeRule
from .same_tensors import SameTensors
from .storage import Chance, compensations

# A state that was made for a parameter: (group, position, name).
Created = tuple[int, int, str]


class Declared(Protocol):
    """What a group asks of its optimizer."""

    param_groups: list[dict[str, Any]]
    state: defaultdict[Tensor, Any]
    _parsed_rule: ParsedRule
    _counts_steps: bool
    _asks_first: bool

    def _group_options(self, group: Mapping[str, Any], interceptor: str | None) -> GroupOptions: ...
    def _coefficients_after(self, group: Mapping[str, Any]) -> Coefficients: ...
    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool: ...
    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]: ...
    def _without_sparse(
        self, group: Mapping[str, Any], grads: list[Tensor | None]
    ) -> list[Tensor | None]: ...
    def _capture_health_check(self) -> None: ...
    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None: ...
    def _where(self, i: int, position: int) -> str: ...


class Group:
    """The parameter group at a place of ``optimizer.param_groups``, planned for as long as nothing changes.

    Parameters may come without a gradient in any step and be left out of it: which ones they are does not
    change the plan, as long as it has met them before.

    Args:
        index: the place.

    Attributes:
        local: what the engines see, as of the last :meth:`see`.
        options: what the group's options ask of the engines, as of the last :meth:`see`.
        buckets: the parameters by engine.
        rest: those that are in none of them.
        reasons: why parameters do not go to a fused engine, by their position in the group.
        trouble: why there is no compiled kernel, if there should be one.
    """

    local: LocalGroup
    options: GroupOptions

    def __init__(self, index: int) -> None:
        self.index = index
        self._forget()

    def _forget(self) -> None:
        self._planned: GroupOptions | None = None
        self._count = 0
        self._counts_steps = False
        self._originals: tuple[list[int], SameTensors] | None = None
        self.buckets: list[Bucket] = []
        self.rest = Rest(counts_steps=False)
        self._without: dict[int, frozenset[str]] = {}  # states that a parameter does not keep
        self.reasons: dict[int, str] = {}
        self.trouble: str | None = None
        self.unknown: list[int] = []  # parameters without a gradient, that nothing is known of
        self._rest_present: list[int] = []

    # -- before the step -------------------------------------------------------------------------------

    def see(self, optimizer: Declared, grads: list[Tensor | None], interceptor: str | None) -> None:
        """Take note of what the group is like now."""
        group = optimizer.param_groups[self.index]
        self.options = optimizer._group_options(group, interceptor)
        # torch itself runs what is not elementwise, on the whole of a DTensor.
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

    def _look(self, bucket: Bucket) -> bool:
        local = self.local
        verdict = bucket.guards.look(local.params, local.grads, local.state)
        if verdict == GRADIENT_LAYOUT:
            for i in bucket.positions:
                if (grad := local.grads[i]) is not None:
                    local.grads[i] = in_layout_of(local.params[i], grad)
            verdict = bucket.guards.look(local.params, local.grads, local.state)
        return verdict == HOLDS

    def _belongs_to_the_rest(self, position: int) -> bool:
        if self.local.grads[position] is None:
            return True
        candidate = self._candidate(position)
        if candidate is None:
            return False
        return (
            self.rest.TAKES_ALL
            or position in self.rest.final
            or not any(
                engine.serves(candidate.param.device.type) and engine.refuses(candidate, self.options) is None
                for engine in ENGINES
            )
        )

    def _candidate(self, position: int) -> Candidate | None:
        """A parameter with its states; nothing if these are not complete."""
        param = self.local.params[position]
        own = self.local.state.get(param, {})
        without = self._without.get(position, frozenset())
        kept = tuple(name for name in self.options.states if name not in without)
        names = (*kept, "step") if self._counts_steps else kept
        if not isinstance(own, dict) or any(own.get(name) is None for name in names):
            return None
        lost = compensations(self.options.rounding, param, kept, own)
        if any(own.get(name) is None for name in lost):
            return None
        states = {name: own[name] for name in (*kept, *lost)}
        return Candidate(
            param, self.local.grads[position], states, own["step"] if self._counts_steps else None
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
                without[position] = frozenset(name for name in names_of_all if own.get(name) is None)
                kept = names_of_all - without[position]
                if kept and kept.issubset(names):
                    firsts.add(position)
                created += [(self.index, position, name) for name in names]
        self.see(optimizer, grads, interceptor)
        self._decide(optimizer, firsts, without)

    def _decide(self, optimizer: Declared, firsts: set[int], without: dict[int, frozenset[str]]) -> None:
        self._forget()
        self._without = without
        local, self._counts_steps = self.local, optimizer._counts_steps
        self._planned, self._count = self.options, len(local.params)
        is_whole = isinstance(optimizer._parsed_rule, WholeRule)
        self.rest = (Whole if is_whole else Rest)(counts_steps=self._counts_steps)
        if local.originals is not None:
            distributed, their_states = local.originals
            self._originals = list(map(id, distributed)), SameTensors(their_states)
        together: dict[Hashable, list[int]] = {}
        for position, grad in enumerate(local.grads):
            candidate = self._candidate(position)
            if candidate is None:
                assert grad is None, "states are complete where there is a gradient"
                self.unknown.append(position)
                continue
            self.rest.ages[position] = 0 if position in firsts else 1
            if self.rest.TAKES_ALL:
                self.rest.positions.append(position)
                continue
            device = candidate.param.device
            if not any(engine.IS_FUSED and engine.serves(device.type) for engine in ENGINES):
                self.reasons[position] = self.options.refusal or f"it is on {device}"
            alike = self._alike(position, candidate, ENGINES)
            together.setdefault(alike, []).append(position)
        for alike, positions in together.items():
            self._place(alike, positions)

    def _alike(self, position: int, candidate: Candidate, engines: Sequence[type[Bucket]]) -> Hashable:
        """The first of some engines that takes a parameter, with what it has in common with others."""
        device = candidate.param.device.type
        for engine in engines:
            if not engine.serves(device):
                continue
            reason = engine.refuses(candidate, self.options)
            if reason is None:
                return engine, engine.alike(candidate)
            self.reasons.setdefault(position, reason)
        return None

    def _place(self, alike: Any, positions: list[int]) -> None:
        """Make a bucket, of the engine that was found or else a slower one."""
        if alike is None:
            self.rest.positions += positions
            return
        engine = alike[0]
        params = [self.local.params[i] for i in positions]
        candidate = self._candidate(positions[0])
        assert candidate is not None, "it is a candidate"
        ages = [self.rest.ages[i] for i in positions]
        try:
            bucket = engine(
                positions,
                params,
                self.local.state,
                tuple(candidate.states),  # all of them have the same
                rounding=self.options.rounding,
                counts_steps=self._counts_steps,
                ages=ages,
            )
        except CompilationError as error:
            self._give_up(engine, positions, error)
            return
        if self._look(bucket):
            self.buckets.append(bucket)
        else:  # it does not hold even now
            self._give_up(engine, positions, NoWord("DLPack cannot describe its memory"))

    def _give_up(self, engine: type[Bucket], positions: Sequence[int], error: CompilationError) -> None:
        """An engine cannot do it after all: the same result by a slower one."""
        if engine.IS_FUSED and not isinstance(error, NoWord):
            self.trouble = str(error)
        self.rest.final.update(positions)
        slower = ENGINES[ENGINES.index(engine) + 1 :]
        together: dict[Hashable, list[int]] = {}
        for position in positions:
            self.reasons[position] = str(error)
            candidate = self._candidate(position)
            assert candidate is not None, "it had a bucket"
            together.setdefault(self._alike(position, candidate, slower), []).append(position)
        for alike, several in together.items():
            self._place(alike, several)

    # -- the step --------------------------------------------------------------------------------------

    def prepare(self, optimizer: Declared, scaling: Scaling | None) -> list[Update]:
        """What the coming step has to do; nothing is changed before the updates are called."""
        group = optimizer.param_groups[self.index]
        coefficients = optimizer._coefficients_after(group)
        by_chance = self.options.rounding == "stochastic"
        if by_chance:
            chance = Chance(group.get("rounding_seed", 0), group.get("rounding_step", 0), self.index)
            self.local = self.local._replace(chance=chance)
        in_parts, maximize = bool(self.local.wrappers), bool(group["maximize"])
        specialize = partial(
            optimizer._parsed_rule.specialize, self.options.states, maximize, in_parts=in_parts
        )
        updates: list[Update] = []
        done = 0
        while done < len(self.buckets):
            bucket = self.buckets[done]
            try:
                updates.append(bucket.prepare(self.local, coefficients, specialize, scaling))
                done += 1
            except CompilationError as error:
                self.buckets.pop(done)
                ages = bucket.guards.ages.tolist()
                if not self._counts_steps:
                    self.rest.ages |= {i: int(age) for i, age in zip(bucket.positions, ages, strict=True)}
                self._give_up(type(bucket), bucket.positions, error)
        self._rest_present = [i for i in self.rest.positions if self.local.grads[i] is not None]
        where = partial(optimizer._where, self.index)
        updates += self.rest.prepare(self.local, self.options, coefficients, specialize, where)
        if scaling is not None:
            # A kernel has unscaled the copy that it got of a gradient of another memory layout.
            for param, grad in zip(self.local.params, self.local.grads, strict=True):
                if grad is not None and param.grad is not None and grad is not param.grad:
                    updates.append(partial(param.grad.copy_, grad))
        if by_chance:
            updates.append(partial(group.__setitem__, "rounding_step", chance.step + 1))
        if self.local.wrappers:
            updates.append(partial(torch.autograd.graph.increment_version, self.local.wrappers))
        return updates

    # -- reports ---------------------------------------------------------------------------------------

    @property
    def is_distributed(self) -> bool:
        """Whether it is planned for shards of distributed tensors."""
        return self._originals is not None

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
    def needs_host_sync(self) -> bool:
        """Whether the host must know if a gradient has overflowed: not every engine can find out itself."""
        return bool(self.rest.positions) or not all(bucket.HEEDS_SCALING for bucket in self.buckets)


def sparse_made_dense(wanted: Callable[[], str], param: Tensor, grad: Tensor | None) -> Tensor | None:
    """A sparse gradient made dense where that is wanted."""
    if grad is None or not is_sparse(grad) or is_sparse(param):
        return grad
    # Only coordinates tell which rows a gradient has.
    return grad.to_dense() if wanted() == "dense" or (wanted() == "rows" and not grad.is_sparse) else grad
