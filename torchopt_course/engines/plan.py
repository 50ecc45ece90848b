"""Which engine takes which parameter of a group, for as long as nothing changes.

Making a plan is slow and careful, following it is fast: before each step it is asked whether it still
:meth:`~Plan.holds`. Whatever is not plainly right for the fused engine goes to eager, with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from . import eager
from .compiler import CompilationError
from .cpu import DTYPES, Batch, Coefficients, Job, Specialise
from .survey import GRADIENT_LAYOUT, HOLDS

_PLAIN = frozenset({Tensor, Parameter})
State = dict[str, Any]
Ready = tuple[Batch, list[Job]]
# The states that the rule reads and writes, and why the whole group goes to eager, if it must.
Terms = tuple[tuple[str, ...], str | None]


class Plan:
    """How one parameter group is stepped.

    Args:
        terms: what the group's options ask for; compared by :meth:`holds`.
        params, grads: the group's parameters and their gradients. Those without a gradient are left out;
            gradients of another memory layout are replaced in ``grads`` by copies in their parameter's.
        state: the optimizer's state, complete for all parameters that have a gradient.
        counts_steps: whether the states also hold a ``"step"``.
        firsts: positions of the parameters that have never been stepped, where steps are not counted.

    Attributes:
        reasons: why parameters go to eager, by their position in the group.
        trouble: why there is no compiled kernel, if there should be one.
    """

    def __init__(
        self,
        terms: Terms,
        params: list[Tensor],
        grads: list[Tensor | None],
        state: Mapping[Tensor, State],
        *,
        counts_steps: bool,
        firsts: frozenset[int],
    ) -> None:
        names, refusal = self.terms = terms
        self._params = list(params)
        self._absent = [grad is None for grad in grads]
        self._any_absent = True in self._absent
        self._names = names
        self._counts_steps = counts_steps
        self.reasons: dict[int, str] = {}
        self.trouble: str | None = None
        self._final = refusal is not None
        self._ages: dict[int, int] = {}
        self._batches: list[Batch] = []

        taken: dict[Any, list[int]] = {}
        for position, (param, grad) in enumerate(zip(params, grads, strict=True)):
            if grad is None:
                continue
            self._ages[position] = 0 if position in firsts else 1
            states = {name: state[param][name] for name in names}
            step = state[param]["step"] if counts_steps else None
            reason = refusal or why_not_cpu(param, grad, states, step)
            if reason:
                self.reasons[position] = reason
            else:
                taken.setdefault((param.dtype, step.dtype if step is not None else None), []).append(position)
        for positions in taken.values():
            try:
                batch = Batch(
                    positions,
                    [params[i] for i in positions],
                    state,
                    names,
                    counts_steps=counts_steps,
                    ages=[self._ages[i] for i in positions],
                )
            except CompilationError as error:
                self._give_up(positions, error)
            else:
                self._batches.append(batch)
        self._settle(params, grads, state)

    def holds(
        self, terms: Terms, params: list[Tensor], grads: list[Tensor | None], state: Mapping[Tensor, State]
    ) -> bool:
        """Whether the group can be stepped as planned; fresh addresses are noted on the way.

        Gradients of another memory layout are replaced in ``grads`` by copies in their parameter's.
        """
        if terms != self.terms or len(params) != len(self._params):
            return False
        kinds = set(map(type, grads))
        if (self._any_absent or not kinds <= _PLAIN) and [grad is None for grad in grads] != self._absent:
            return False
        if self._batches:
            if not self._all_plain(grads, kinds):
                return False
            keys, states = list(state), list(state.values())
            if not all(self._look(batch, params, grads, keys, states) for batch in self._batches):
                return False
        return all(self._eager_holds(i, params[i], grads[i], state) for i in self.reasons)

    def _settle(
        self, params: list[Tensor], grads: list[Tensor | None], state: Mapping[Tensor, State]
    ) -> None:
        """The first look at a new plan: a batch that does not hold even now goes to eager."""
        for batch in list(self._batches):
            if not self._look(batch, params, grads, list(state), list(state.values())):
                self._batches.remove(batch)
                self.reasons |= dict.fromkeys(batch.positions, "DLPack cannot describe its memory")
                self._final = True

    @staticmethod
    def _look(
        batch: Batch,
        params: list[Tensor],
        grads: list[Tensor | None],
        keys: list[Tensor],
        states: list[State],
    ) -> bool:
        verdict = batch.survey.look(params, grads, keys, states)
        if verdict == GRADIENT_LAYOUT:
            for i in batch.positions:
                grads[i] = in_layout_of(params[i], grads[i])  # type: ignore[arg-type]
            verdict = batch.survey.look(params, grads, keys, states)
        return verdict == HOLDS

    def prepare(self, coefficients: Coefficients, specialise: Specialise) -> list[Ready]:
        """Have ready what the coming step needs; nothing is changed yet."""
        ready = []
        for batch in list(self._batches):
            try:
                ready.append((batch, batch.prepare(coefficients, specialise)))
            except CompilationError as error:
                self._batches.remove(batch)
                self._give_up(batch.positions, error)
        return ready

    def step(
        self,
        ready: list[Ready],
        grads: list[Tensor | None],
        state: Mapping[Tensor, State],
        coefficients: Coefficients,
        specialise: Specialise,
        *,
        differentiable: bool,
    ) -> None:
        """Step the group: the batches fused, the rest one tensor at a time."""
        for batch, jobs in ready:
            batch.step(jobs)
        for i in sorted(self.reasons):
            param, grad = self._params[i], grads[i]
            assert grad is not None
            step = state[param]["step"] if self._counts_steps else None
            # A step on a device is not read: that would make the host wait for it.
            age = self._ages[i] if step is None else step.item() if step.device.type == "cpu" else step
            values = coefficients(age)
            variant = specialise(values)
            if step is not None:
                step += 1
            states = {name: state[param][name] for name in self._names}
            eager.update(variant, param, grad, states, values, differentiable=differentiable)
        self._ages = dict.fromkeys(self._ages, 1)

    def _give_up(self, positions: Sequence[int], error: CompilationError) -> None:
        """No compiler: the same result, only slower."""
        self.trouble = str(error)
        self.reasons |= dict.fromkeys(positions, str(error))
        self._final = True

    def _all_plain(self, grads: Sequence[Tensor | None], kinds: set[type]) -> bool:
        if not kinds <= _PLAIN:  # absent ones, or a subclass that is eager's business
            mine = [grads[i] for batch in self._batches for i in batch.positions]
            return set(map(type, mine)) <= _PLAIN and not any(map(Tensor.is_neg, mine))  # type: ignore[arg-type]
        return not any(map(Tensor.is_neg, grads))  # type: ignore[arg-type]

    def _eager_holds(self, i: int, param: Tensor, grad: Tensor | None, state: Mapping[Tensor, State]) -> bool:
        """Still the same parameter, its state complete, and still not fit for the fused engine."""
        own = state.get(param)
        if param is not self._params[i] or (own is None and (self._names or self._counts_steps)):
            return False
        own = own or {}
        if any(name not in own for name in (*self._names, *(["step"] if self._counts_steps else []))):
            return False
        if grad is None:
            return False
        states = {name: own[name] for name in self._names}
        return self._final or why_not_cpu(param, grad, states, own.get("step")) is not None


def why_not_cpu(param: Tensor, grad: Tensor, states: Mapping[str, Tensor], step: Tensor | None) -> str | None:
    """Why the fused CPU engine cannot take a parameter; ``None`` if it can."""
    if torch.compiler.is_compiling():
        return "torch.compile is tracing the step"
    for label, tensor in {"it": param, "its gradient": grad, **states}.items():
        if type(tensor) not in _PLAIN:
            return f"{label} is a {type(tensor).__name__}"
        if tensor.device.type != "cpu":
            return f"{label} is on {tensor.device}"
        if tensor.layout != torch.strided:
            return f"{label} has the layout {tensor.layout}"
        if tensor.dtype not in DTYPES:
            return f"{label} is of dtype {tensor.dtype}"
        if tensor.dtype != param.dtype:
            return f"{label} is of dtype {tensor.dtype}, not {param.dtype} as the parameter"
        if tensor.is_neg() or tensor._is_zerotensor():
            return f"{label} is a lazy view"
        if tensor.is_inference() and label != "its gradient":
            return f"{label} was made in inference mode"
        if label not in ("it", "its gradient") and not same_layout(param, tensor):
            return f"{label} is laid out in memory otherwise than the parameter"
    if not is_dense(param):
        return "its elements are not next to one another in memory"
    if step is not None and not (
        type(step) is Tensor and step.dtype in DTYPES and step.device.type == "cpu" and step.dim() == 0
    ):
        return "its step is not a 0-d float tensor on the CPU"
    return None


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 0:
            return True
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether equal offsets in memory are equal indices: the strides that matter are equal."""
    return 0 in a.shape or all(
        size == 1 or s == t for size, s, t in zip(a.shape, a.stride(), b.stride(), strict=True)
    )


def in_layout_of(param: Tensor, tensor: Tensor) -> Tensor:
    """A gradient or state in its parameter's memory layout: itself, or else a copy."""
    if same_layout(param, tensor) or not is_dense(param):
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
