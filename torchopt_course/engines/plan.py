"""Which engine takes which parameter of a group, for as long as nothing changes.

Making a plan is slow and careful, following it is fast: before each step it is asked whether it still
:meth:`~Plan.holds`. Whatever is not plainly right for a fused engine goes to foreach or to eager, with a
reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

from . import eager, foreach
from .batch import Batch, Coefficients, Job, Scaling, Specialise
from .compiler import CompilationError
from .cpu import CpuBatch
from .cuda import CudaBatch
from .layout import in_layout_of, is_dense, same_layout
from .rules import Variant
from .shards import View
from .survey import GRADIENT_LAYOUT, HOLDS

# The fused engines, by the device that they run on.
FUSED: dict[str, type[Batch]] = {"cpu": CpuBatch, "cuda": CudaBatch}
_PLAIN = frozenset({Tensor, Parameter})
_STEP_DTYPES = (torch.float32, torch.float64)
State = dict[str, Any]


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


class Plan:
    """How one parameter group is stepped.

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
        params, grads, state, *_ = view
        self._params = list(params)
        self._absent = [grad is None for grad in grads]
        self._any_absent = True in self._absent
        self._counts_steps = counts_steps
        self.reasons: dict[int, str] = {}
        self.trouble: str | None = None
        self._final = terms.refusal is not None
        self._ages: dict[int, int] = {}
        self._batches: list[Batch] = []
        self._listed: set[int] = set()  # which of those with a reason went to foreach in the last step

        taken: dict[Any, list[int]] = {}
        for position, (param, grad) in enumerate(zip(params, grads, strict=True)):
            if grad is None:
                continue
            self._ages[position] = 0 if position in firsts else 1
            states = {name: state[param][name] for name in terms.states}
            step = state[param]["step"] if counts_steps else None
            reason = terms.refusal or why_not_fused(param, grad, states, step)
            if reason:
                self.reasons[position] = reason
            else:
                alike = (param.device, param.dtype, *((step.device, step.dtype) if step is not None else ()))
                taken.setdefault(alike, []).append(position)
        for positions in taken.values():
            try:
                batch = FUSED[params[positions[0]].device.type](
                    positions,
                    [params[i] for i in positions],
                    state,
                    terms.states,
                    counts_steps=counts_steps,
                    ages=[self._ages[i] for i in positions],
                )
            except CompilationError as error:
                self._give_up(positions, error)
            else:
                self._batches.append(batch)
        self._settle(view)

    # -- before the step -------------------------------------------------------------------------------

    def holds(self, terms: Terms, view: View) -> bool:
        """Whether the group can be stepped as planned; fresh addresses are noted on the way.

        Gradients of another memory layout are replaced in the view by copies in their parameter's.
        """
        params, grads, state, kinds, _ = view
        if terms != self.terms or len(params) != len(self._params):
            return False
        if (self._any_absent or not kinds <= _PLAIN) and [grad is None for grad in grads] != self._absent:
            return False
        if self._batches:
            if not self._all_plain(grads, kinds):
                return False
            keys, states = list(state), list(state.values())
            if not all(self._look(batch, params, grads, keys, states) for batch in self._batches):
                return False
        return all(self._still_apart(i, params[i], grads[i], state) for i in self.reasons)

    def _settle(self, view: View) -> None:
        """The first look at a new plan: a batch that does not hold even now goes to eager."""
        params, grads, state, *_ = view
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

    def _all_plain(self, grads: Sequence[Tensor | None], kinds: set[type]) -> bool:
        if not kinds <= _PLAIN:  # absent ones, or a subclass that is not a fused engine's business
            mine = [grads[i] for batch in self._batches for i in batch.positions]
            return set(map(type, mine)) <= _PLAIN and not any(map(Tensor.is_neg, mine))  # type: ignore[arg-type]
        return not any(map(Tensor.is_neg, grads))  # type: ignore[arg-type]

    def _still_apart(self, i: int, param: Tensor, grad: Tensor | None, state: Mapping[Tensor, State]) -> bool:
        """Still the same parameter, its state complete, and still not fit for a fused engine."""
        own = state.get(param)
        names = self.terms.states
        if param is not self._params[i] or (own is None and (names or self._counts_steps)):
            return False
        own = own or {}
        if any(name not in own for name in (*names, *(["step"] if self._counts_steps else []))):
            return False
        if grad is None:
            return False
        states = {name: own[name] for name in names}
        return self._final or why_not_fused(param, grad, states, own.get("step")) is not None

    # -- the step --------------------------------------------------------------------------------------

    def prepare(
        self, view: View, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None
    ) -> list[Job]:
        """What the coming step has to do; nothing is changed before the jobs are called."""
        jobs: list[Job] = []
        for batch in list(self._batches):
            try:
                jobs.append(batch.prepare(coefficients, specialise, scaling))
            except CompilationError as error:
                self._batches.remove(batch)
                self._give_up(batch.positions, error)
        if self.reasons:
            jobs += self._apart(view, coefficients, specialise)
            jobs.append(self._remember)
        return jobs

    def _apart(self, view: View, coefficients: Coefficients, specialise: Specialise) -> Iterator[Job]:
        """The parameters that no fused engine takes: in lists where that is wished, else one by one."""
        _, grads, state, *_ = view
        together: dict[Any, list[int]] = {}
        self._listed = set()
        for i in sorted(self.reasons):
            param = self._params[i]
            step = state[param]["step"] if self._counts_steps else None
            if self._in_lists(param, grads[i], step):
                together.setdefault((param.device, param.dtype, self._age(i, step)), []).append(i)
                self._listed.add(i)
            else:
                together[i] = [i]
        for key, positions in together.items():
            params = [self._params[i] for i in positions]
            steps = [state[param]["step"] for param in params] if self._counts_steps else []
            values = coefficients(self._age(positions[0], steps[0] if steps else None))
            variant = specialise(values)
            engine: Callable[..., None] = partial(eager.update, differentiable=self.terms.differentiable)
            if isinstance(key, tuple):
                foreach.program(variant)  # what may fail fails now
                engine = foreach.update
            yield partial(
                _update_and_count,
                engine,
                variant,
                params,
                [grads[i] for i in positions],
                [{name: state[param][name] for name in self.terms.states} for param in params],
                values,
                steps,
            )

    def _age(self, i: int, step: Tensor | None) -> Any:
        """How many steps parameter i has taken."""
        if step is None:
            return self._ages[i]
        # A step on a device is not read: that would make the host wait for it.
        return step.item() if step.device.type == "cpu" else step

    def _in_lists(self, param: Tensor, grad: Tensor | None, step: Tensor | None) -> bool:
        wished = self.terms.lists
        if wished is None:
            wished = param.device.type in _get_foreach_kernels_supported_devices()
        return bool(
            wished
            and not self.terms.differentiable
            and type(param) in _PLAIN
            and type(grad) in _PLAIN
            and grad is not None
            and grad.layout == torch.strided
            and (step is None or step.device.type == "cpu")
        )

    def _remember(self) -> None:
        self._ages = dict.fromkeys(self._ages, 1)

    def _give_up(self, positions: Sequence[int], error: CompilationError) -> None:
        """No compiler: the same result, only slower."""
        self.trouble = str(error)
        self.reasons |= dict.fromkeys(positions, str(error))
        self._final = True

    # -- reports ---------------------------------------------------------------------------------------

    def engines(self) -> dict[int, tuple[str, str]]:
        """For each parameter that is stepped, by position: which engine takes it, and why no faster one."""
        fused = {i: (batch.ENGINE, "") for batch in self._batches for i in batch.positions}
        return fused | {
            i: ("foreach engine" if i in self._listed else "eager engine", reason)
            for i, reason in self.reasons.items()
        }

    @property
    def asks_the_host(self) -> bool:
        """Whether the host must know if a gradient has overflowed, for not every step can find out itself."""
        return bool(self.reasons) or not all(batch.HEEDS_SCALING for batch in self._batches)


def _update_and_count(
    update: Callable[..., None],
    variant: Variant,
    params: list[Tensor],
    grads: list[Tensor | None],
    states: list[State],
    values: Mapping[str, Any],
    steps: list[Tensor],
) -> None:
    update(variant, params, grads, states, values)
    for step in steps:
        step += 1


def why_not_fused(
    param: Tensor, grad: Tensor, states: Mapping[str, Tensor], step: Tensor | None
) -> str | None:
    """Why no fused engine can take a parameter; ``None`` if one can."""
    engine = FUSED.get(param.device.type)
    for label, tensor in {"it": param, "its gradient": grad, **states}.items():
        if type(tensor) not in _PLAIN:
            return f"{label} is a {type(tensor).__name__}"
        if tensor.layout != torch.strided:
            return f"{label} is sparse" if tensor.is_sparse else f"{label} has the layout {tensor.layout}"
        if engine is None:
            return f"{label} is on {tensor.device}"
        if tensor.dtype not in engine.DTYPES:
            return f"{label} is of dtype {tensor.dtype}"
        if tensor.device != param.device or tensor.dtype != param.dtype:
            return (
                f"{label} is {tensor.dtype} on {tensor.device}, the parameter {param.dtype} on {param.device}"
            )
        if tensor.is_neg() or tensor._is_zerotensor():
            return f"{label} is a lazy view"
        if tensor.is_inference() and label != "its gradient":
            return f"{label} was made in inference mode"
        if label not in ("it", "its gradient") and not same_layout(param, tensor):
            return f"{label} is laid out in memory otherwise than the parameter"
    if not is_dense(param):
        return "its elements are not next to one another in memory"
    if step is not None and not (
        type(step) is Tensor
        and step.dtype in _STEP_DTYPES
        and step.dim() == 0
        and (step.device.type == "cpu" or step.device == param.device)
    ):
        return f"its step is not a 0-d float tensor on the CPU or on {param.device}"
    return None
