"""Which engine takes which parameters of a group: the fastest that does not refuse them.

Whatever is not plainly right for a fast engine goes to a slower one, with a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from . import ENGINES
from .bucket import Bucket, Candidate, Coefficients, GroupOptions
from .eight_bits import keys_of
from .layout import in_layout_of
from .local import LocalGroup
from .native.compiler import CompilationError, NoWord
from .native.frame import GRADIENT_LAYOUT, HOLDS
from .operations.rest import Rest
from .operations.whole import Whole
from .rule.parsed import ParsedRule
from .rule.whole import WholeRule
from .same_tensors import SameTensors
from .storage import compensations


class Declared(Protocol):
    """What a group asks of its optimizer."""

    param_groups: list[dict[str, Any]]
    state: defaultdict[Tensor, Any]
    _parsed_rule: ParsedRule
    _counts_steps: bool
    _asks_first: bool
    coefficients: Any

    def _coefficient_options(self, group: Mapping[str, Any]) -> dict[str, Any]: ...
    def _group_options(self, group: Mapping[str, Any], interceptor: str | None) -> GroupOptions: ...
    def _try_formula(self, group: Mapping[str, Any]) -> None: ...
    def _coefficients_after(self, group: Mapping[str, Any]) -> Coefficients: ...
    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool: ...
    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]: ...
    def _without_sparse(
        self, group: Mapping[str, Any], grads: list[Tensor | None]
    ) -> list[Tensor | None]: ...
    @property
    def _prepares_gradients(self) -> bool: ...
    def _prepared_gradients(
        self, group: Mapping[str, Any], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]: ...
    def _capture_health_check(self) -> None: ...
    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None: ...
    def _where(self, i: int, position: int) -> str: ...


class Assignment:
    """The parameters of a group by engine, as decided for what the group was like.

    Attributes:
        local: what the engines see.
        options: what the group's options ask of the engines.
        buckets: the parameters by engine.
        rest: those that are in none of them.
        reasons: why parameters do not go to a fused engine, by their position in the group.
        trouble: why there is no compiled kernel, if there should be one.
        unknown: parameters without a gradient, that nothing is known of.
    """

    local: LocalGroup
    options: GroupOptions

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

    def _kept(self, position: int) -> tuple[str, ...]:
        """The names of the states that a parameter keeps."""
        without = self._without.get(position, frozenset())
        return tuple(name for name in self.options.states if name not in without)

    def _is_complete(self, position: int) -> bool:
        """Whether a parameter has all its states."""
        own = self.local.state.get(self.local.params[position], {})
        if not isinstance(own, dict) or (self._counts_steps and own.get("step") is None):
            return False
        return all(keys_of(own, name) for name in self._kept(position))

    def _candidate(self, position: int) -> Candidate | None:
        """A parameter with its states; nothing if these are not complete."""
        if not self._is_complete(position):
            return None
        param, kept = self.local.params[position], self._kept(position)
        own = self.local.state.get(param, {})
        keys = [keys_of(own, name) for name in kept]
        lost = compensations(self.options.rounding, param, kept, own)
        if any(own.get(name) is None for name in lost):
            return None
        states = {key: own[key] for key in (*(first for first, *_ in keys), *lost)}
        scales = {key: own[key] for _, *others in keys for key in others}
        step = own["step"] if self._counts_steps else None
        return Candidate(param, self.local.grads[position], states, step, scales)

    def _look(self, bucket: Bucket) -> bool:
        local = self.local
        verdict = bucket.guards.look(local.params, local.grads, local.state)
        if verdict == GRADIENT_LAYOUT:
            for i in bucket.positions:
                if (grad := local.grads[i]) is not None:
                    local.grads[i] = in_layout_of(local.params[i], grad)
            verdict = bucket.guards.look(local.params, local.grads, local.state)
        return verdict == HOLDS

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
                tuple(candidate.scales),
                grad_dtype=candidate.grad_dtype,
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
