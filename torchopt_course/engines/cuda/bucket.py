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

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bucket import Bucket, Candidate, Coefficients, GroupOptions, Scaling, Specialize, Update
from ..fused import why_not_fused
from ..local import LocalGroup, State
from ..native.compiler import CompilationError, NoWord, callable_at, native
from ..rule.parsed import Specialization
from ..same_tensors import SameTensors
from .kernel import CHUNK, DTYPES, kernels

Words = np.ndarray[Any, np.dtype[np.int64]]

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
            _count_steps(self._step_dtype)  # compiled now: what fails later fails in the middle of a step
        self._rows: Words = np.array(
            [
                (i, start, min(CHUNK, size - start))
                for i, size in enumerate(self._sizes.tolist())
                for start in range(0, max(size, 1), CHUNK)
            ],
            dtype=np.int64,
        )
        self._whole = self._upload(self._rows)
        # Where the chunks of each tensor begin in the list of all, and how many elements it has.
        starts = np.searchsorted(self._rows[:, 0], np.arange(len(params)))
        self._chunks = self._upload(np.stack([starts, self._sizes], axis=1))
        self._pattern = b""
        self._split: list[tuple[float, Any]] = []
        # The addresses that were uploaded last, their copy on the device, whether all are aligned.
        self._seen: tuple[bytes, Tensor, bool] = b"", self._whole, False
        # Pinned memory cannot be had while a graph is captured: some is kept ready.
        self._pinned = self._pin(self.guards.table) if self._device.type == "cuda" else None

    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        table = self._table()
        keys = None if local.chance is None else self._upload(local.chance.keys(self.positions))
        if self._counts_on_device:
            steps = torch.stack(self._steps.now()).double()
            try:
                passes = [(work, coefficients(steps)) for _, work in self._parts(by_age=False)]
            except (TypeError, ValueError, RuntimeError) as error:
                reason = f"its coefficients cannot be computed for a tensor of steps: {error}"
                raise CompilationError(reason) from error
        else:
            passes = [(work, coefficients(age)) for age, work in self._parts()]
        return partial(
            self._run,
            [
                launch
                for work, values in passes
                for launch in self._launches(
                    table, work, keys, specialize(_of_the_first(values)), values, scaling
                )
            ],
        )

    def _launches(
        self,
        table: Tensor,
        work: Tensor,
        keys: Tensor | None,
        specialization: Specialization,
        values: Mapping[str, Any],
        scaling: Scaling | None,
    ) -> list[Update]:
        """The launches of kernels, compiled and with all their arguments."""
        if specialization.program is None:
            raise NoWord(specialization.reason)
        program = specialization.program
        values = program.values(values)
        on_device = tuple(name for name, value in values.items() if _is_on_device(value))
        numbers = [float(value) for name, value in values.items() if name not in on_device]
        pointers = [table, work, *([] if keys is None else [keys])]
        if on_device:
            columns = [values[name].double().expand(len(self._sizes)) for name in on_device]
            pointers.append(torch.stack(columns, dim=1))
        if scaling is not None:
            given = [scaling.found_inf, *([] if scaling.grad_scale is None else [scaling.grad_scale])]
            pointers += [tensor.to(self._device, torch.float32, non_blocking=True) for tensor in given]
        of_reductions: list[Tensor] = []
        if width := len(program.reductions):
            # What the programs of a launch find out of their parts, and of whole tensors.
            found = [
                torch.empty(count * width, dtype=torch.float64, device=self._device)
                for count in (len(self._rows), len(self._sizes))
            ]
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
        )
        launches: list[Update] = []
        for position, function in enumerate(functions):
            adds_up = position % 2 == 1
            arguments = of_reductions if adds_up else [*pointers, *numbers]
            function.make_ready(*arguments)
            launches.append(partial(function.launch, len(self._sizes) if adds_up else len(work), *arguments))
        return launches

    def _run(self, launches: list[Update]) -> None:
        """Update all parameters and states in place, as prepared."""
        with torch.cuda.device(self._device.index if self._device.type == "cuda" else -1):
            for launch in launches:
                launch()
        if self._step_dtype is not None and not self._counts_on_device:
            table, absent = self.guards.table, self.guards.absent
            _count_steps(self._step_dtype)(table.ctypes.data, *table.shape, absent.ctypes.data)
        self._settle()

    def _settle(self) -> None:
        """Tell autograd what has been written behind its back, and remember that a step was taken."""
        written = self.guards.written
        if not self._counts_steps:
            self.guards.ages[self.guards.absent == 0] = 1
        torch.autograd.graph.increment_version(written)
        written.clear()

    def _parts(self, *, by_age: bool = True) -> list[tuple[float, Any]]:
        """The numbers of steps taken, each with its work list; most often one, for all tensors.

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
            each = [(ages.item(i), self._rows[:, 0] == i) for i in np.flatnonzero(stepped)]
            return [(age, self._upload(self._rows[mine])) for age, mine in each]
        oldest = ages[stepped].max()
        # Parameters that are all stepped keep their distance in age, so the parts stay the same for long.
        behind = np.where(stepped, oldest - ages, -1)
        pattern = behind.tobytes()
        if pattern != self._pattern:
            of_row, lags = behind[self._rows[:, 0]], np.unique(behind[stepped])
            self._split = [(lag, self._upload(self._rows[of_row == lag])) for lag in lags]
            self._pattern = pattern
        return [(float(oldest - lag), work) for lag, work in self._split]

    # -- tables on the device --------------------------------------------------------------------------

    def _table(self) -> Tensor:
        """The addresses, on the device; copied there again only when one has changed."""
        addresses = self.guards.table.tobytes()
        if addresses != self._seen[0]:
            columns = self.guards.table.shape[1] - self._counts_steps
            aligned = not bool((self.guards.table[:, :columns] % 16).any())
            self._seen = b"", self._whole, aligned
        if self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
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


@cache
def _count_steps(dtype: torch.dtype) -> Callable[..., object]:
    """``count(table, rows, columns, absent)``: one more at the address, in host memory, that ends each row
    which is not absent."""
    kind = str(dtype).removeprefix("torch.")

    def build() -> Callable[..., Any]:
        import numba

        from ..native.intrinsics import pointer_to

        words, steps = pointer_to(numba.int64), pointer_to(getattr(numba, kind))

        def count(table: Any, rows: Any, columns: Any, absent: Any) -> Any:
            last = words(table + 8 * (columns - 1))
            left_out = words(absent)
            for i in range(rows):
                if not left_out[i]:
                    steps(last[i * columns])[0] += 1

        return count

    return callable_at(native("count_steps", f"count_steps {kind} 2", build, 4), 4, holds_gil=False)
