"""Which engine takes which parameter of a group, for as long as nothing changes.

Making a plan is slow and careful, following it is fast: before each step it is asked whether it still
:meth:`~Plan.holds`. Whatever is not plainly right for a fused engine goes to foreach or to eager, with a
reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .apart import Apart, Terms
from .bucket import Bucket, Coefficients, Job, Scaling, Specialise
from .native.compiler import CompilationError, NoWord
from .fused import FUSED, why_not_fused
from .layout import in_layout_of
from .native.frame import GRADIENT_LAYOUT, HOLDS
from .same_tensors import SameTensors
from .shards import State, View


class Plan:
    """How one parameter group is stepped.

    Parameters may come without a gradient in any step and be left out of it: which ones they are does not
    change the plan, as long as it has met them before.

    Args:
        terms: what the group's options ask for; compared by :meth:`holds`.
        view: the group; its states are complete for all parameters that have a gradient. Gradients of
            another memory layout are replaced in it by copies in their parameter's.
        counts_steps: whether the states also hold a ``"step"``.
        firsts: positions of the parameters that have never been stepped, where steps are not counted.

    Attributes:
        reasons: why parameters do not go to a fused engine, by their position in the group.
        trouble: why there is no compiled kernel, if there should be one.
    """

    def __init__(
        self,
        terms: Terms,
        view: View,
        *,
        counts_steps: bool,
        firsts: frozenset[int],
    ) -> None:
        self.terms = terms
        self._counts_steps = counts_steps
        self._names = (*terms.states, "step") if counts_steps else terms.states
        self._count = len(view.params)
        self._originals: tuple[list[int], SameTensors] | None = None
        if view.originals is not None:
            distributed, their_states = view.originals
            self._originals = list(map(id, distributed)), SameTensors(their_states)
        self._apart = Apart(terms, counts_steps=counts_steps)
        self.reasons = self._apart.reasons
        self.trouble: str | None = None
        self._buckets: list[Bucket] = []
        self._unknown: list[int] = []  # parameters without a gradient, that nothing is known of

        taken: dict[Any, list[int]] = {}
        for position, (param, grad) in enumerate(zip(view.params, view.grads, strict=True)):
            own = view.state.get(param, {})
            if grad is None and any(own.get(name) is None for name in self._names):
                self._unknown.append(position)
                continue
            states = {name: own[name] for name in terms.states}
            step = own["step"] if counts_steps else None
            reason = terms.refusal or why_not_fused(param, grad, states, step)
            self._apart.ages[position] = 0 if position in firsts else 1
            if reason is None:
                alike = (param.device, param.dtype, *(() if step is None else (step.device, step.dtype)))
                taken.setdefault(alike, []).append(position)
            else:
                self.reasons[position] = reason
        for positions in taken.values():
            params = [view.params[i] for i in positions]
            try:
                bucket = FUSED[params[0].device.type](
                    positions,
                    params,
                    view.state,
                    terms.states,
                    counts_steps=counts_steps,
                    ages=[self._apart.ages[i] for i in positions],
                )
            except CompilationError as error:
                self._give_up(positions, error)
            else:
                self._buckets.append(bucket)
        self._settle(view)

    # -- before the step -------------------------------------------------------------------------------

    def holds(self, terms: Terms, view: View) -> bool:
        """Whether the group can be stepped as planned; fresh addresses are noted on the way.

        Gradients of another memory layout are replaced in the view by copies in their parameter's.
        """
        params, grads, state, _, _, originals = view
        if terms != self.terms or len(params) != self._count:
            return False
        if any(grads[i] is not None for i in self._unknown):
            return False
        if self._originals is not None and originals is not None:
            ids, same_states = self._originals
            if list(map(id, originals[0])) != ids or not same_states.are(originals[1]):
                return False
            try:
                for bucket in self._buckets:
                    bucket.guards.expect([params[i] for i in bucket.positions], state)
            except KeyError:  # a state is missing
                return False
        if self._buckets:
            if not all(self._look(bucket, params, grads, state) for bucket in self._buckets):
                return False
        return self._apart.hold(view)

    def _settle(self, view: View) -> None:
        """The first look at a new plan: a bucket that does not hold even now goes to eager."""
        params, grads, state, *_ = view
        for bucket in list(self._buckets):
            if not self._look(bucket, params, grads, state):
                self._buckets.remove(bucket)
                self._set_apart(bucket.positions, "DLPack cannot describe its memory")

    @staticmethod
    def _look(
        bucket: Bucket,
        params: list[Tensor],
        grads: list[Tensor | None],
        state: Mapping[Tensor, State],
    ) -> bool:
        verdict = bucket.guards.look(params, grads, state)
        if verdict == GRADIENT_LAYOUT:
            for i in bucket.positions:
                if (grad := grads[i]) is not None:
                    grads[i] = in_layout_of(params[i], grad)
            verdict = bucket.guards.look(params, grads, state)
        return verdict == HOLDS

    # -- the step --------------------------------------------------------------------------------------

    def prepare(
        self, view: View, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None
    ) -> list[Job]:
        """What the coming step has to do; nothing is changed before the jobs are called."""
        jobs: list[Job] = []
        for bucket in list(self._buckets):
            try:
                jobs.append(bucket.prepare(coefficients, specialise, scaling))
            except CompilationError as error:
                self._buckets.remove(bucket)
                self._give_up(bucket.positions, error, bucket.guards.ages)
        return [*jobs, *self._apart.prepare(view, coefficients, specialise)]

    def _give_up(self, positions: Sequence[int], error: CompilationError, ages: Iterable[float] = ()) -> None:
        """No kernel: the same result, only slower."""
        if not isinstance(error, NoWord):
            self.trouble = str(error)
        self._apart.ages |= {i: int(age) for i, age in zip(positions, ages, strict=False)}
        self._set_apart(positions, str(error))

    def _set_apart(self, positions: Sequence[int], reason: str) -> None:
        self.reasons |= dict.fromkeys(positions, reason)
        self._apart.final = True

    # -- reports ---------------------------------------------------------------------------------------

    def engines(self) -> dict[int, tuple[str, str]]:
        """For each parameter of the last step, by position: which engine took it, and why no faster one."""
        fused = {
            i: (bucket.ENGINE, "")
            for bucket in self._buckets
            for i, absent in zip(bucket.positions, bucket.guards.absent, strict=True)
            if not absent
        }
        return fused | self._apart.engines

    @property
    def left_over(self) -> dict[int, str]:
        """Why parameters that have a gradient in the step that was prepared last go to no fused engine."""
        return {i: self.reasons[i] for i in self._apart.engines}

    @property
    def is_distributed(self) -> bool:
        """Whether it was made for shards of distributed tensors."""
        return self._originals is not None

    @property
    def asks_the_host(self) -> bool:
        """Whether the host must know if a gradient has overflowed, for not every step can find out itself."""
        return bool(self.reasons) or not all(bucket.HEEDS_SCALING for bucket in self._buckets)
