"""What the foreach and the eager engine have in common: torch's operations, in place, on guarded tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bucket import Bucket, Candidate, Coefficients, GroupOptions, Part, Scaling, Specialize, Update
from ..eight_bits import CODE
from ..fused import why_odd, why_odd_step
from ..guards import PLAIN
from ..local import LocalGroup
from ..native.compiler import NoWord
from ..native.frame import GRADS_MOVED, TARGETS_MOVED
from ..rule.parsed import Specialization
from ..rule.program import Program, is_of_several
from ..storage import HALVES
from .in_place import InPlace, Language, in_place
from .one_by_one import as_real, is_exact, widened
from .search import Row, part_of

Columns = Sequence[Sequence[Tensor]]
# For which torch has all operations.
_DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
)


class OperationsBucket(Bucket):
    """Plain tensors whose update is a program's operations, written over what they read.

    Such operations cannot fail on tensors that fit, so nothing needs to be kept until all are computed.
    """

    _one: Tensor | None = None

    @property
    @abstractmethod
    def _language(self) -> Language:
        """How the operations are said."""

    @classmethod
    def serves(cls, device: str) -> bool:
        return True

    @classmethod
    def refuses(cls, candidate: Candidate, options: GroupOptions) -> str | None:
        param, grad, states, step, _ = candidate
        if options.rounding is not None and {*HALVES, CODE}.intersection(
            (param.dtype, *(s.dtype for s in states.values()))
        ):
            return "it is stored in fewer bits than it is computed in"
        if options.differentiable or options.is_followed:
            return "each operation of the step is followed"
        if param.dtype not in _DTYPES:
            return f"it is of dtype {param.dtype}"
        for label, tensor in {
            "it": param,
            **({} if grad is None else {"its gradient": grad}),
            **states,
        }.items():
            if type(tensor) not in PLAIN or tensor.layout != torch.strided:
                return f"{label} is no plain tensor"
            if label != "its gradient" and torch._debug_has_internal_overlap(tensor) == 1:
                return f"{label} has several elements in one place"
            if (tensor.device, tensor.shape) != (param.device, param.shape) or not (
                tensor.dtype == param.dtype
                or (label == "its gradient" and is_exact(tensor.dtype, param.dtype))
            ):
                return f"{label} is not like the parameter"
            if reason := why_odd(label, tensor):
                return reason
        if step is not None and step.device.type != "cpu":
            return "its step count is on a device, where the host does not read it"
        return why_odd_step(step, param)

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        self.guards.written.clear()
        frame = self.guards.frame
        if frame[TARGETS_MOVED] or frame[GRADS_MOVED]:
            if not self._memory_is_apart():
                raise NoWord("its memory is another's too")
            frame[TARGETS_MOVED] = frame[GRADS_MOVED] = 0
        updates: list[Update] = []
        for age, mine in self._by_age():
            values = coefficients(age)
            specialization = specialize(values)
            if specialization.program is None:
                raise NoWord(specialization.reason)
            if self._dtype.is_complex:
                specialization.refuse_parts("a parameter is complex, and is seen as pairs of real numbers")
            program = in_place(specialization.program, specialization.states, self._language)
            numbers = program.numbers(_numbers(specialization.program, values), self._dtype)
            if numbers is None:
                raise NoWord(f"torch has no operation in place for coefficients beyond {self._dtype}")
            columns = self._columns(local, np.flatnonzero(mine).tolist())
            updates.append(partial(self._run, program, columns, numbers))
        present = np.flatnonzero(self.guards.absent == 0).tolist()
        owners = [local.params[self.positions[i]] for i in present] if self._counts_steps else []
        updates.append(partial(self._count, present, [local.state[param]["step"] for param in owners]))
        return lambda: [update() for update in updates]

    def search(
        self,
        number: int,
        local: LocalGroup,
        coefficients: Coefficients,
        specialize: Specialize,
        scaling: Scaling | None,
    ) -> list[Part]:
        parts = []
        for age, mine in self._by_age():
            values = coefficients(age)
            specialization = specialize(values)
            places = [self.positions[i] for i in np.flatnonzero(mine).tolist()]
            rows = (self._row(local, specialization, place) for place in places)
            parts.append(part_of(number, specialization, values, rows))
        return parts

    @staticmethod
    def _row(local: LocalGroup, specialization: Specialization, place: int) -> Row:
        param, grad = local.params[place], local.grads[place]
        assert grad is not None, "it is stepped"
        own = local.state.get(param, {})
        return Row(param, widened(grad, param), {name: own[name] for name in specialization.states})

    @abstractmethod
    def _run(self, program: InPlace, columns: Columns, numbers: Sequence[Any]) -> None:
        """Follow a program."""

    def _columns(self, local: LocalGroup, rows: Sequence[int]) -> Columns:
        """Parameters, gradients and each of the states."""
        params = [local.params[self.positions[i]] for i in rows]
        grads: Any = [local.grads[self.positions[i]] for i in rows]
        if self._stored[1] != self._dtype:
            grads = list(map(widened, grads, params))
        owns = [local.state[param] for param in params] if self._names else []
        columns: Any = [params, grads, *([own[name] for own in owns] for name in self._names)]
        if self._dtype.is_complex:
            if any(tensor.is_conj() for column in columns for tensor in column):
                raise NoWord("one of its tensors is lazily conjugated")
            columns = [[as_real(tensor) for tensor in column] for column in columns]
        return list(columns)

    def _memory_is_apart(self) -> bool:
        """Whether nobody's memory is another's; gradients are only read, and may share among themselves."""
        table = self.guards.table[self.guards.absent == 0]
        targets = table[:, [0, *range(2, 2 + len(self._names))]].ravel()
        targets = targets[targets != 0]  # empty tensors are nowhere
        return len(np.unique(targets)) == len(targets) and not np.isin(table[:, 1], targets).any()

    def _count(self, present: Sequence[int], steps: Sequence[Tensor]) -> None:
        if self._one is None:
            self._one = torch.ones(
                (), dtype=self._step_dtype
            )  # a number of Python's would become one for each
        for step in steps:
            step.add_(self._one)
        if not steps:
            self.guards.ages[present] = 1


def _numbers(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a program computes with; tensors of one element are read."""
    host = {name: value if is_of_several(name) else _read(value) for name, value in values.items()}
    return {name: _read(value) for name, value in program.values(host).items()}


def _read(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
