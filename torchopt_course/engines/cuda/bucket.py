"""The fused CUDA engine: one launch for all tensors of a device and dtype, compiled from the rule by Triton.
(More where a rule reduces: one for each visit to all elements, and a small one that adds up; and a small one
that counts first, where the kernel computes what depends on the step.)

As on the CPU, the kernel takes addresses: a table of pointers says where parameter, gradient and states lie,
a work list which program of the launch takes which part. Everything is computed in float32 (float64 for
float64) and rounded once, when it is written.

Coefficients that the host knows are arguments of the kernel. Where the step count lives on the device
(``fused=True``, ``capturable=True``), what depends on it is computed there too, by the kernel or, where that
cannot, by torch for all parameters at once: the host never waits, and a CUDA graph replays the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bucket import Ahead, Bucket, Candidate, Coefficients, GroupOptions, Part, Scaling, Specialize, Update
from ..fused import kernel_program, why_not_fused
from ..local import LocalGroup, State
from ..native.compiler import CompilationError, NoWord
from ..rule.number_program import NumberProgram
from ..rule.parsed import Specialization
from ..same_tensors import SameTensors
from .kernel import DTYPES, counting_kernel, kernels
from .launch import Launch, current_stream, keep_for_stream
from .of_step import OfStep, of_any_step
from .steps import count_steps
from .tables import Table, Tables, is_captured, upload
from .work import Work, Works


class CudaBucket(Bucket):
    """The tensors of one device and dtype in one parameter group, for the fused CUDA engine."""

    ENGINE = "fused CUDA engine"
    IS_FUSED = True

    @classmethod
    def serves(cls, device: str) -> bool:
        return device == "cuda"

    @classmethod
    def refuses(cls, candidate: Candidate, options: GroupOptions) -> str | None:
        mixed = options.rounding is not None
        if candidate.scales:
            return options.refusal or "it keeps states in 8 bits, which the CUDA kernel does not read"
        return options.refusal or why_not_fused(candidate, candidate.param.device.type, DTYPES, mixed=mixed)

    def _set_up(self, params: Sequence[Tensor], state: Mapping[Tensor, State]) -> None:
        steps = [state[param]["step"] for param in params] if self._counts_steps else []
        self._steps = SameTensors(steps)
        self._any_on_device = any(map(_is_on_device, steps))
        self._works = Works(self._sizes, self._device)
        table = self.guards.table
        self._tables = Tables(table, table.shape[1] - self._counts_steps, self._device)
        if self._step_dtype is not None and not self.counts_on_device:
            # Compiled now: what fails later fails in the middle of a step.
            count, absent = count_steps(self._step_dtype), self.guards.absent.ctypes.data
            self._count = partial(count, table.ctypes.data, *table.shape, absent)
        self._streams = {current_stream(self._device)}  # each step runs and allocates on the current one

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        self.guards.refuse_shared_memory()
        keys = None if local.chance is None else upload(local.chance.keys(self.positions), self._device)
        table, launches = self._tables.now(), []
        if self.counts_on_device and (counted := local.counted) is not None:
            specialization = specialize(counted.coefficients)
            program = kernel_program(specialization, None)
            try:
                made = of_any_step(counted.program, program)
            except NoWord:  # but operations of torch can
                pass
            else:
                computed, given = ((), ()) if made is None else (made.names, made.given)
                values = program.values(counted.coefficients).items()
                numbers = {name: value for name, value in values if name not in computed}
                numbers |= {f"r{i}": counted.registers[i] for i in given}
                for work in self._works.of_present(self.guards):
                    launches += self._launches_of(table, work, keys, specialization, numbers, scaling, made)
                return partial(self._run, launches)
        for work, known in self._passes(coefficients):
            specialization = specialize(_of_the_first(known))
            numbers = kernel_program(specialization, None).values(known)
            launches += self._launches_of(table, work, keys, specialization, numbers, scaling)
        return partial(self._run, launches)

    def _launches_of(
        self,
        table: Table,
        work: Work,
        keys: Tensor | None,
        specialization: Specialization,
        numbers: Mapping[str, Any],
        scaling: Scaling | None,
        made: OfStep | None = None,
    ) -> list[Launch]:
        """The launches of an update; where the device computes what depends on steps, the first counts."""
        launches, _ = self._launches(table, work.chunks, keys, specialization, None, numbers, scaling, made)
        if made is not None and self._step_dtype is not None:
            told = [] if scaling is None else [self._at_hand(scaling.found_inf)]
            pointers = [table.words, work.rows, *told]
            counter = counting_kernel(self.guards.table.shape[1], self._step_dtype, scaled=bool(told))
            launcher = counter.ready(len(work.rows), pointers, anywhere=bool(told))
            launches.insert(0, Launch(launcher, pointers, (), reads_table=True))
        return launches

    def prepare_ahead(self, specialization: Specialization, coefficients: NumberProgram) -> Ahead:
        if is_captured(self._device):
            raise NoWord("a graph is being captured, and nothing else may be done now")
        program = kernel_program(specialization, None)
        made = of_any_step(coefficients, program) if self.counts_on_device else None
        computed, given = ((), ()) if made is None else (made.names, made.given)
        names = [name for name in program.numbers if name not in computed]
        zeros = dict.fromkeys([*names, *(f"r{i}" for i in given)], 0.0)
        table = self._tables.now()
        launches = self._launches_of(table, self._works.whole, None, specialization, zeros, None, made)
        places = [program.numbers.index(name) for name in names]
        places += range(len(program.numbers), len(program.numbers) + len(given))
        return Ahead({}, partial(self._update_ahead, table.aligned, launches, places), registers=given)

    def _update_ahead(
        self, aligned: bool, launches: Sequence[Launch], places: Sequence[int], numbers: Sequence[float]
    ) -> Update | None:
        if not self.guards.same_age or self.guards.present < len(self._sizes):
            return None
        try:
            self.guards.refuse_shared_memory()
        except NoWord:
            return None
        if (table := self._tables.now()).aligned != aligned:
            return None
        given = [numbers[place] for place in places]
        return partial(self._run, [launch.again(table, given) for launch in launches])

    def search(
        self,
        number: int,
        local: LocalGroup,
        coefficients: Coefficients,
        specialize: Specialize,
        scaling: Scaling | None,
    ) -> list[Part]:
        table, parts = self._tables.now(for_search=True), []
        for work, values in self._passes(coefficients):
            specialization = specialize(_of_the_first(values))
            program = specialization.stage(number)
            if program is None:
                parts.append(Part(()))
                continue
            numbers = kernel_program(specialization, number).values(values)
            launches, totals = self._launches(
                table, work.chunks, None, specialization, number, numbers, scaling
            )
            self._launch(launches)
            totals = totals.view(len(self._sizes), len(program.reductions))
            totals = totals if work is self._works.whole else totals.index_select(0, work.rows)
            names = [line.out for line in program.reductions]
            found = [totals[:, names.index(name)] for name in program.results]
            searches = specialization.searches
            parts.append(Part(searches[number].wanted, found, work.size, number + 1 == len(searches)))
        return parts

    def _passes(self, coefficients: Coefficients) -> list[tuple[Work, Mapping[str, Any]]]:
        """The work of the coming step, each with the numbers for it."""
        if not self.counts_on_device:
            return [(work, coefficients(age)) for age, work in self._works.by_age(self.guards)]
        steps, works = torch.stack(self._steps.now()).double(), self._works.of_present(self.guards)
        try:
            return [(work, coefficients(steps)) for work in works]
        except (TypeError, ValueError, RuntimeError) as error:
            reason = f"its coefficients cannot be computed for a tensor of steps: {error}"
            raise CompilationError(reason) from error

    def _launches(
        self,
        table: Table,
        work: Tensor,
        keys: Tensor | None,
        specialization: Specialization,
        number: int | None,
        values: Mapping[str, Any],
        scaling: Scaling | None,
        made: OfStep | None = None,
    ) -> tuple[list[Launch], Tensor]:
        """The launches of kernels, compiled and with all their arguments.

        Args:
            number: of a search; ``None``: the update.
            values: the numbers of its program, and what is given for those that it computes itself.
            made: how these are computed.

        Returns:
            The launches, and where they put the numbers of whole tensors.
        """
        program = kernel_program(specialization, number)
        on_device = tuple(name for name, value in values.items() if _is_on_device(value))
        numbers = [float(value) for name, value in values.items() if name not in on_device]
        pointers = [work, *([] if keys is None else [keys])]
        if on_device:
            columns = [
                values[name].to(self._device, torch.float64).expand(len(self._sizes)) for name in on_device
            ]
            pointers.append(torch.stack(columns, dim=1))
        if scaling is not None:
            told = [scaling.found_inf, *([] if scaling.grad_scale is None else [scaling.grad_scale])]
            pointers += map(self._at_hand, told)
        of_reductions: list[Tensor] = []
        totals = work.new_empty(0)
        if width := len(program.reductions):
            # What the programs of a launch find out of their parts, and of whole tensors.
            found = [
                torch.empty(count * width, dtype=torch.float64, device=self._device)
                for count in (len(self._works.whole.chunks), len(self._sizes))
            ]
            totals = found[1]
            of_reductions = [*found, self._works.of_tensors]
            pointers += of_reductions
        functions = kernels(
            specialization,
            on_device,
            self._stored,
            self._rounding,
            self._step_dtype if self.counts_on_device else None,
            counts_steps=self._counts_steps,
            scaled=0 if scaling is None else len(told),
            aligned=table.aligned,
            number=number,
            of_step=made,
        )
        launches = []
        for position, function in enumerate(functions):
            if position % 2 == 1:  # it adds up
                launcher = function.ready(len(self._sizes), of_reductions, anywhere=False)
                launches.append(Launch(launcher, of_reductions, (), reads_table=False))
                continue
            given = [table.words, *pointers]
            launcher = function.ready(len(work), given, *numbers, anywhere=scaling is not None)
            launches.append(Launch(launcher, given, numbers, reads_table=True))
        return launches, totals

    def _at_hand(self, number: Tensor) -> Tensor:
        return number.to(self._device, torch.float32, non_blocking=True)

    def _run(self, launches: Sequence[Launch]) -> None:
        """Update all parameters and states in place, as prepared."""
        self._launch(launches)
        if self._step_dtype is not None and not self.counts_on_device:
            self._count()
        self._settle()

    @property
    def counts_on_device(self) -> bool:
        return self._any_on_device

    @property
    def heeds_scaling(self) -> bool:
        # Steps that the host counts would be counted although the device leaves one out.
        return not self._counts_steps or self.counts_on_device

    @property
    def age(self) -> Any:
        if not self.counts_on_device:
            return super().age
        steps = self._steps.now()
        return torch.stack([steps[i] for i in np.flatnonzero(self.guards.absent == 0)]).double().amax()

    def _launch(self, launches: Sequence[Launch]) -> None:
        with torch.cuda.device(self._device.index if self._device.type == "cuda" else -1):
            self._streams.add(current_stream(self._device))
            if len(self._streams) > 1:
                keep_for_stream(launches)
            for launch in launches:
                launch()

    def _settle(self) -> None:
        """Tell autograd what has been written behind its back, and remember that a step was taken."""
        if not self._counts_steps:
            self.guards.ages[self.guards.absent == 0] = 1
        torch.autograd.graph.increment_version(self.guards.written)
        self.guards.written.clear()
        self.guards.read.clear()


def _of_the_first(values: Mapping[str, Any]) -> dict[str, Any]:
    """The coefficients of one parameter, where there is a row of them for all."""
    return {n: v[:1] if isinstance(v, Tensor) and v.dim() == 1 else v for n, v in values.items()}


def _is_on_device(value: Any) -> bool:
    """Whether a number lives where the host cannot read it without waiting."""
    return isinstance(value, Tensor) and value.device.type != "cpu"
