"""What the foreach and the eager engine have in common: torch's operations, in place, on guarded tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bucket import Ahead, Bucket, Candidate, Coefficients, GroupOptions, Part, Scaling, Specialize, Update
from ..eight_bits import CODE
from ..fused import why_odd, why_odd_step
from ..guards import PLAIN
from ..local import LocalGroup, State
from ..native.compiler import NoWord
from ..rule.number_program import NumberProgram
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

    def _set_up(self, params: Sequence[Tensor], state: Mapping[Tensor, State]) -> None:
        # A number of Python's would become a tensor for each step count.
        self._one = torch.ones((), dtype=self._step_dtype, device="cpu")

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        columns, steps = self._columns()
        updates: list[Update] = []
        present = self.guards.absent == 0
        for age, mine in self._by_age():
            values = coefficients(age)
            specialization = specialize(values)
            program = self._program(specialization)
            numbers = program.numbers(_numbers(specialization.program, values), self._dtype)
            if numbers is None:
                raise NoWord(f"torch has no operation in place for coefficients beyond {self._dtype}")
            if self.guards.same_age:
                rows = columns
            else:
                places = np.flatnonzero(mine[present]).tolist()
                rows = [[column[i] for i in places] for column in columns]
            updates.append(partial(self._run, program, rows, numbers))
        return partial(self._finish, updates, steps)

    def prepare_ahead(self, specialization: Specialization, coefficients: NumberProgram) -> Ahead:
        return Ahead({}, partial(self._update_ahead, self._program(specialization)))

    def _update_ahead(self, program: InPlace, values: Sequence[float]) -> Update | None:
        if not self.guards.same_age:
            return None
        try:
            columns, steps = self._columns()
        except NoWord:
            return None
        numbers = program.numbers(values, self._dtype)
        if numbers is None:
            return None
        updates = [partial(self._run, program, columns, numbers)] if self.guards.present else []
        return partial(self._finish, updates, steps)

    def _program(self, specialization: Specialization) -> InPlace:
        if specialization.program is None:
            raise NoWord(specialization.reason)
        if self._dtype.is_complex:
            specialization.refuse_parts("a parameter is complex, and is seen as pairs of real numbers")
        return in_place(specialization.program, specialization.states, self._language)

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
    def _run(self, program: InPlace, columns: Columns, numbers: Sequence[float]) -> None:
        """Follow a program."""

    def _columns(self) -> tuple[Columns, Sequence[Tensor]]:
        """Parameters, gradients and each of the states; and the step counts. All as the guards saw them."""
        self.guards.refuse_shared_memory()
        width = 1 + len(self._names) + self._counts_steps
        params, *others = (self.guards.written[column::width] for column in range(width))
        steps = others.pop() if self._counts_steps else []
        grads = [*self.guards.read]
        if self._stored[1] != self._dtype:
            grads = list(map(widened, grads, params))
        columns: Any = [params, grads, *others]
        if self._dtype.is_complex:
            if any(tensor.is_conj() for column in columns for tensor in column):
                raise NoWord("one of its tensors is lazily conjugated")
            columns = [[as_real(tensor) for tensor in column] for column in columns]
        return columns, steps

    def _finish(self, updates: Sequence[Update], steps: Sequence[Tensor]) -> None:
        for update in updates:
            update()
        for step in steps:
            step.add_(self._one)
        if not self._counts_steps:
            self.guards.ages[self.guards.absent == 0] = 1
        self.guards.written.clear()
        self.guards.read.clear()


def _numbers(program: Program | None, values: Mapping[str, Any]) -> list[float]:
    """What a program computes with; tensors of one element are read."""
    assert program is not None, "it has been read"
    host = {name: value if is_of_several(name) else _read(value) for name, value in values.items()}
    return [float(_read(value)) for value in program.values(host).values()]


def _read(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value
