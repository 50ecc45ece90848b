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
        together: dict[Any, list[int]] = {}  # those of one age; and of one device and dtype if plain
        for i in sorted(self.reasons):
            param, grad = view.params[i], view.grads[i]
            if grad is not None:
                step = view.state[param]["step"] if self._counts_steps else None
                together.setdefault((self._age(i, step), _alike(param, grad)), []).append(i)
        names = self._terms.states
        is_followed = self._terms.differentiable or interceptor() is not None
        for (age, alike), positions in together.items():
            params = [view.params[i] for i in positions]
            grads = [grad for i in positions if (grad := view.grads[i]) is not None]
            owns = [view.state[param] for param in params] if self._names else [{}] * len(params)
            values = coefficients(age)
            variant = specialise(values)
            engine = eager if is_followed or alike is None or not self._in_lists(age, *alike) else foreach
            columns = [params, grads, *([own[name] for own in owns] for name in names)]
            job = None
            if variant.program is not None and alike is not None and not is_followed:
                job = engine.prepare(variant, columns, values)
            if job is not None:
                yield job
            else:
                engine = eager
                for param, grad, own in zip(params, grads, owns, strict=True):
                    states = {name: own[name] for name in names}
                    new = eager.compute(
                        variant, param, grad, states, values, differentiable=self._terms.differentiable
                    )
                    yield partial(eager.write, new)
            for i in positions:
                self.engines[i] = engine.NAME, variant.reason or self.reasons[i]
            yield partial(self._count, positions, [own["step"] for own in owns] if self._counts_steps else [])

    def _age(self, i: int, step: Tensor | None) -> Any:
        """How many steps parameter i has taken."""
        if step is None:
            return self.ages[i]
        # A step on a device is not read: that would make the host wait for it.
        return step.item() if step.is_cpu else step

    def _in_lists(self, age: Any, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether parameters go to the foreach engine."""
        wished = self._terms.lists
        if wished is None:
            wished = device.type in _get_foreach_kernels_supported_devices()
        return wished and not isinstance(age, Tensor)

    def _count(self, positions: Sequence[int], steps: Sequence[Tensor]) -> None:
        for step in steps:
            step += 1
        self.ages |= dict.fromkeys(positions, 1)


def _alike(param: Tensor, grad: Tensor) -> tuple[torch.device, torch.dtype] | None:
    """What parameters that are updated in place together have in common; ``None`` for one that cannot be."""
    dtype = param.dtype
    is_plain = (
        type(param) in PLAIN
        and type(grad) in PLAIN
        and grad.dtype == dtype
        and (dtype.is_floating_point or dtype.is_complex)
        and grad.layout == torch.strided
    )
    return (param.device, dtype) if is_plain else None
