"""The fused CUDA engine: one launch for all tensors of a device and dtype, compiled from the rule by Triton.
(Where a rule reduces there are more: one for each visit to all elements, and a small one that adds up.)

As on the CPU, the kernel takes addresses: a table of pointers says where parameter, gradient and states lie,
a work list which program of the launch takes which part. Everything is computed in float32 (float64 for
float64) and rounded once, when it is written.

Coefficients that the host knows are arguments of the kernel. Where the step count lives on the device
(``fused=True``, ``capturable=True``), the coefficients are computed there too, by the same function, for all
parameters at once: the host never waits, and a CUDA graph replays the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bucket import Bucket, Candidate, Coefficients, GroupOptions, Part, Scaling, Specialize, Update
from ..fused import kernel_program, why_not_fused
from ..local import LocalGroup, State
from ..native.compiler import CompilationError
from ..rule.parsed import Specialization
from ..same_tensors import SameTensors
from .kernel import DTYPES, kernels
from .steps import count_steps
from .work import Words, Work, chunks_of

# Tables that a captured graph reads again in each replay; nobody says when the graph is gone.
_read_by_graphs: list[Tensor] = []


class CudaBucket(Bucket):
    """The tensors of one device and dtype in one parameter group, for the fused CUDA engine."""

    ENGINE = "fused CUDA engine"
    IS_FUSED = True
    HEEDS_SCALING = True

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
        self._counts_on_device = any(map(_is_on_device, steps))
        if self._step_dtype is not None and not self._counts_on_device:
            count_steps(self._step_dtype)  # compiled now: what fails later fails in the middle of a step
        self._rows = chunks_of(self._sizes)
        self._whole = Work(self._upload(self._rows), int(self._sizes.sum()))
        # Where the chunks of each tensor begin in the list of all, and how many elements it has.
        starts = np.searchsorted(self._rows[:, 0], np.arange(len(params)))
        self._chunks = self._upload(np.stack([starts, self._sizes], axis=1))
        self._pattern = b""
        self._split: list[tuple[float, Work]] = []
        # The addresses that were uploaded last, their copy on the device, whether all are aligned.
        self._seen: tuple[bytes, Tensor, bool] = b"", self._whole.chunks, False
        self._table_of_search: Tensor | None = None
        # Pinned memory cannot be had while a graph is captured: some is kept ready.
        self._pinned = self._pin(self.guards.table) if self._device.type == "cuda" else None

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        keys = None if local.chance is None else self._upload(local.chance.keys(self.positions))
        table, launches = self._table(), []
        for work, values in self._passes(coefficients):
            specialization = specialize(_of_the_first(values))
            launches += self._launches(table, work.chunks, keys, specialization, None, values, scaling)[0]
        self._table_of_search = None
        return partial(self._run, launches)

    def search(
        self,
        number: int,
        local: LocalGroup,
        coefficients: Coefficients,
        specialize: Specialize,
        scaling: Scaling | None,
    ) -> list[Part]:
        parts = []
        # The update reads the same addresses: while a graph is captured they can be copied only once.
        table = self._table_of_search = self._table()
        for work, values in self._passes(coefficients):
            specialization = specialize(_of_the_first(values))
            program = specialization.stage(number)
            if program is None:
                parts.append(Part(()))
                continue
            launches, totals = self._launches(
                table, work.chunks, None, specialization, number, values, scaling
            )
            self._launch(launches)
            totals = totals.view(len(self._sizes), len(program.reductions))
            totals = totals if work.tensors is None else totals.index_select(0, work.tensors)
            names = [line.out for line in program.reductions]
            found = [totals[:, names.index(name)] for name in program.results]
            searches = specialization.searches
            parts.append(Part(searches[number].wanted, found, work.size, number + 1 == len(searches)))
        return parts

    def _passes(self, coefficients: Coefficients) -> list[tuple[Work, Mapping[str, Any]]]:
        """The work of the coming step, each with the numbers for it."""
        if not self._counts_on_device:
            return [(work, coefficients(age)) for age, work in self._parts()]
        steps = torch.stack(self._steps.now()).double()
        try:
            return [(work, coefficients(steps)) for _, work in self._parts(by_age=False)]
        except (TypeError, ValueError, RuntimeError) as error:
            reason = f"its coefficients cannot be computed for a tensor of steps: {error}"
            raise CompilationError(reason) from error

    def _launches(
        self,
        table: Tensor,
        work: Tensor,
        keys: Tensor | None,
        specialization: Specialization,
        number: int | None,
        values: Mapping[str, Any],
        scaling: Scaling | None,
    ) -> tuple[list[Update], Tensor]:
        """The launches of kernels, compiled and with all their arguments.

        Args:
            number: of a search; ``None``: the update.

        Returns:
            The launches, and where they put the numbers of whole tensors.
        """
        program = kernel_program(specialization, number)
        values = program.values(values)
        on_device = tuple(name for name, value in values.items() if _is_on_device(value))
        numbers = [float(value) for name, value in values.items() if name not in on_device]
        pointers = [table, work, *([] if keys is None else [keys])]
        if on_device:
            columns = [
                values[name].to(self._device, torch.float64).expand(len(self._sizes)) for name in on_device
            ]
            pointers.append(torch.stack(columns, dim=1))
        if scaling is not None:
            given = [scaling.found_inf, *([] if scaling.grad_scale is None else [scaling.grad_scale])]
            pointers += [tensor.to(self._device, torch.float32, non_blocking=True) for tensor in given]
        of_reductions: list[Tensor] = []
        totals = table.new_empty(0)
        if width := len(program.reductions):
            # What the programs of a launch find out of their parts, and of whole tensors.
            found = [
                torch.empty(count * width, dtype=torch.float64, device=self._device)
                for count in (len(self._rows), len(self._sizes))
            ]
            totals = found[1]
            of_reductions = [*found, self._chunks]
            pointers += of_reductions
        counted = self._step_dtype if self._counts_on_device else None
        functions = kernels(
            specialization,
            on_device,
            self._stored,
            self._rounding,
            counted,
            counts_steps=self._counts_steps,
            scaled=0 if scaling is None else len(given),
            aligned=self._seen[2],
            number=number,
        )
        launches: list[Update] = []
        for position, function in enumerate(functions):
            adds_up = position % 2 == 1
            arguments = of_reductions if adds_up else [*pointers, *numbers]
            function.make_ready(*arguments)
            launches.append(partial(function.launch, len(self._sizes) if adds_up else len(work), *arguments))
        return launches, totals

    def _run(self, launches: list[Update]) -> None:
        """Update all parameters and states in place, as prepared."""
        self._launch(launches)
        if self._step_dtype is not None and not self._counts_on_device:
            table, absent = self.guards.table, self.guards.absent
            count_steps(self._step_dtype)(table.ctypes.data, *table.shape, absent.ctypes.data)
        self._settle()

    @property
    def age(self) -> Any:
        if not self._counts_on_device:
            return super().age
        steps = self._steps.now()
        return torch.stack([steps[i] for i in np.flatnonzero(self.guards.absent == 0)]).double().amax()

    def _launch(self, launches: Sequence[Update]) -> None:
        with torch.cuda.device(self._device.index if self._device.type == "cuda" else -1):
            for launch in launches:
                launch()

    def _settle(self) -> None:
        """Tell autograd what has been written behind its back, and remember that a step was taken."""
        written = self.guards.written
        if not self._counts_steps:
            self.guards.ages[self.guards.absent == 0] = 1
        torch.autograd.graph.increment_version(written)
        written.clear()

    def _parts(self, *, by_age: bool = True) -> list[tuple[float, Work]]:
        """The numbers of steps taken, each with its work; most often one, for all tensors.

        Parameters without a gradient are in none of them.
        """
        ages = self.guards.ages if by_age else np.ones_like(self.guards.ages)
        if self.guards.present == len(ages) and (self.guards.same_age or not by_age):
            return [(ages.item(0), self._whole)]
        if not self.guards.present:
            return []
        stepped = self.guards.absent == 0
        if not np.isfinite(
            ages[stepped]
        ).all():  # someone has written it into a "step": torch takes it as it is
            each = [(ages.item(i), np.arange(len(ages)) == i) for i in np.flatnonzero(stepped)]
            return [(age, self._work_of(mine)) for age, mine in each]
        oldest = ages[stepped].max()
        # Parameters that are all stepped keep their distance in age, so the parts stay the same for long.
        behind = np.where(stepped, oldest - ages, -1)
        pattern = behind.tobytes()
        if pattern != self._pattern:
            self._split = [(lag, self._work_of(behind == lag)) for lag in np.unique(behind[stepped])]
            self._pattern = pattern
        return [(float(oldest - lag), work) for lag, work in self._split]

    def _work_of(self, mine: np.ndarray[Any, np.dtype[np.bool_]]) -> Work:
        """The work of some of the tensors."""
        chunks = self._upload(self._rows[mine[self._rows[:, 0]]])
        return Work(chunks, int(self._sizes[mine].sum()), self._upload(np.flatnonzero(mine)))

    # -- tables on the device --------------------------------------------------------------------------

    def _table(self) -> Tensor:
        """The addresses, on the device; copied there again only when one has changed."""
        addresses = self.guards.table.tobytes()
        if addresses != self._seen[0]:
            columns = self.guards.table.shape[1] - self._counts_steps
            aligned = not bool((self.guards.table[:, :columns] % 16).any())
            self._seen = b"", self._whole.chunks, aligned
        if self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            if self._table_of_search is not None:
                return self._table_of_search
            # The graph repeats this copy in each replay, so the pinned memory is its own from now on.
            pinned = self._pin(self.guards.table) if self._pinned is None else self._pinned
            pinned.copy_(torch.from_numpy(self.guards.table))
            _read_by_graphs.append(pinned)
            self._pinned = None
            return pinned.to(self._device, non_blocking=True)
        if addresses != self._seen[0]:
            self._seen = addresses, self._upload(self.guards.table), self._seen[2]
        if self._pinned is None and self._device.type == "cuda":
            self._pinned = self._pin(self.guards.table)
        return self._seen[1]

    def _upload(self, words: Words) -> Tensor:
        if self._device.type != "cuda":  # Triton's interpreter, which runs on the CPU
            return torch.from_numpy(words.copy())
        return self._pin(words).to(self._device, non_blocking=True)

    @staticmethod
    def _pin(words: Words) -> Tensor:
        return torch.from_numpy(words.copy()).pin_memory()


def _of_the_first(values: Mapping[str, Any]) -> dict[str, Any]:
    """The coefficients of one parameter, where there is a row of them for all."""
    return {n: v[:1] if isinstance(v, Tensor) and v.dim() == 1 else v for n, v in values.items()}


def _is_on_device(value: Any) -> bool:
    """Whether a number lives where the host cannot read it without waiting."""
    return isinstance(value, Tensor) and value.device.type != "cpu"
