"""The parameters of a group that no fused engine takes: in lists where that is wished, else one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

from . import eager, foreach
from .bucket import Coefficients, Job, Specialise
from .fused import why_not_fused
from .guards import PLAIN
from .interception import interceptor
from .rules import Variant
from .shards import State, View


class Terms(NamedTuple):
    """What a group's options ask for.

    Attributes:
        states: the states that the rule reads and writes.
        refusal: why no fused engine may take the group, if so.
        lists: whether the rest goes to the foreach engine; ``None``: where torch would do so.
        differentiable: whether autograd follows the step.
    """

    states: tuple[str, ...]
    refusal: str | None
    lists: bool | None
    differentiable: bool


class Apart:
    """Those of one group, with the reasons.

    Attributes:
        reasons: why they do not go to a fused engine, by their position in the group.
        final: whether that stays so as long as the plan does, whatever becomes of the tensors.
        ages: the steps that each has taken, where steps are not counted: 0 or 1 for "some".
        engines: which engine takes each in the step that was prepared last, and why no faster one.
    """

    def __init__(self, terms: Terms, *, counts_steps: bool) -> None:
        self._terms = terms
        self._counts_steps = counts_steps
        self._names = (*terms.states, "step") if counts_steps else terms.states
        self.reasons: dict[int, str] = {}
        self.final = terms.refusal is not None
        self.ages: dict[int, int] = {}
        self.engines: dict[int, tuple[str, str]] = {}

    def hold(self, view: View) -> bool:
        """Whether their states are still complete, and none of them has become fit for a fused engine."""
        return all(
            self._is_still_apart(view.params[i], grad, view.state)
            for i in self.reasons
            if (grad := view.grads[i]) is not None
        )

    def _is_still_apart(self, param: Tensor, grad: Tensor, state: Mapping[Tensor, State]) -> bool:
        own = state.get(param, {})
        if not isinstance(own, dict) or any(own.get(name) is None for name in self._names):
            return False
        states = {name: own[name] for name in self._terms.states}
        step = own["step"] if self._counts_steps else None
        return self.final or why_not_fused(param, grad, states, step) is not None

    def prepare(self, view: View, coefficients: Coefficients, specialise: Specialise) -> Iterator[Job]:
        """What the coming step has to do for them; nothing is changed before the jobs are called."""
        self.engines = {}
        together: dict[Any, list[int]] = {}
        for i in sorted(self.reasons):
            param, grad = view.params[i], view.grads[i]
            if grad is None:
                continue
            step = view.state[param]["step"] if self._counts_steps else None
            in_lists = self._in_lists(param, grad, step)
            self.engines[i] = "foreach engine" if in_lists else "eager engine", self.reasons[i]
            key = (param.device, param.dtype, self._age(i, step)) if in_lists else i
            together.setdefault(key, []).append(i)
        for key, positions in together.items():
            params = [view.params[i] for i in positions]
            grads = [grad for i in positions if (grad := view.grads[i]) is not None]
            states = [{name: view.state[param][name] for name in self._terms.states} for param in params]
            steps = [view.state[param]["step"] for param in params] if self._counts_steps else []
            values = coefficients(self._age(positions[0], steps[0] if steps else None))
            variant = specialise(values)
            if variant.program is None:
                self.engines |= dict.fromkeys(positions, ("eager engine", variant.reason))
            if variant.program is not None and isinstance(key, tuple):
                yield partial(foreach.update, variant, params, grads, states, values)
            else:
                for tensors in zip(params, grads, states, strict=True):
                    yield self._one(variant, *tensors, values)
            yield partial(self._count, positions, steps)

    def _one(
        self, variant: Variant, param: Tensor, grad: Tensor, states: State, coefficients: Mapping[str, Any]
    ) -> Job:
        """One parameter's step."""
        compute = partial(
            eager.compute,
            variant,
            param,
            grad,
            states,
            coefficients,
            differentiable=self._terms.differentiable,
        )
        is_plain = {type(param), type(grad)} <= PLAIN and _is_number(param) and not interceptor()
        if variant.program is not None and is_plain:
            # Words of the list cannot fail for tensors that fit: no need to keep the new values of all.
            return lambda: eager.write(compute())
        return partial(eager.write, compute())

    def _age(self, i: int, step: Tensor | None) -> Any:
        """How many steps parameter i has taken."""
        if step is None:
            return self.ages[i]
        # A step on a device is not read: that would make the host wait for it.
        return step.item() if step.device.type == "cpu" else step

    def _in_lists(self, param: Tensor, grad: Tensor, step: Tensor | None) -> bool:
        wished = self._terms.lists
        if wished is None:
            wished = param.device.type in _get_foreach_kernels_supported_devices()
        return (
            wished
            and not self._terms.differentiable
            and _is_number(param)
            and {type(param), type(grad)} <= PLAIN
            and not (param.is_neg() or param.is_conj())  # lists of lazy views cannot be written to
            and grad.layout == torch.strided
            and grad.dtype == param.dtype
            and (step is None or step.device.type == "cpu")
        )

    def _count(self, positions: Sequence[int], steps: Sequence[Tensor]) -> None:
        for step in steps:
            step += 1
        self.ages |= dict.fromkeys(positions, 1)


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
