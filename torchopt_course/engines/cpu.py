"""The fused CPU engine: one pass over all tensors of a group, compiled from the rule by numba.

The kernel reads parameter, gradient and states once, applies the rule, writes back once. It takes
addresses, so one call updates all tensors of a batch, and it lets go of the interpreter lock, so a large
batch is shared between threads. Every element is computed by the same scalar formula without contraction
or reassociation: results do not depend on the number of threads.
"""

from __future__ import annotations

import pkgutil
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiler import NativeFunction, native
from .rules import Rule, Variant, bind
from .survey import Survey
from .threads import share

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
# Below this many elements waking a second thread costs more than it brings.
SHARED_FROM = 300_000
# Elements of one entry of the work list: large enough to forget its cost, small enough to share fairly.
CHUNK = 1 << 16
# Into how many parts a work list is cut for sharing: a thread that wakes up late takes fewer of them.
PIECES = 32

Words = np.ndarray[Any, np.dtype[np.int64]]
Coefficients = Callable[[float], Mapping[str, Any]]
Specialise = Callable[[Mapping[str, Any]], Variant]
# A kernel, its work list, and its coefficients.
Job = tuple[NativeFunction, "WorkList", "array[float]"]


class WorkList:
    """What a kernel goes through, row by row: which tensor, from which byte on, how many elements."""

    def __init__(self, rows: Words) -> None:
        self.rows = rows
        self.address = rows.ctypes.data
        self.length = len(rows)
        size = -(-self.length // PIECES) or 1
        self.pieces = [(i, min(i + size, self.length)) for i in range(0, self.length, size)]


class Batch:
    """The tensors of one dtype in one parameter group, planned for one fused pass a step.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters themselves, dense and of one dtype in ``DTYPES``.
        optimizer_state: the optimizer's ``state``; it has an entry for each parameter.
        names: the states that the rule reads and writes.
        counts_steps: whether the states also hold a ``"step"``.
        ages: how many steps each parameter has taken, where steps are not counted: 0 or 1 for "some".

    Attributes:
        survey: tells whether the plan still holds; its look must precede each :meth:`step`.
    """

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        optimizer_state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        *,
        counts_steps: bool,
        ages: Sequence[int],
    ) -> None:
        place = {id(param): i for i, param in enumerate(optimizer_state)}
        has_state = bool(names) or counts_steps
        states = [optimizer_state[param] if has_state else {} for param in params]
        self.positions = positions
        self.survey = Survey(
            positions,
            params,
            [place.get(id(param), 0) for param in params],
            states,
            names,
            counts_steps=counts_steps,
        )
        self._counts_steps = counts_steps
        self.survey.ages[:] = ages
        self._dtype = params[0].dtype
        self._step_dtype = states[0]["step"].dtype if counts_steps else None
        sizes = [param.numel() for param in params]
        rows = [
            (i, start * self._dtype.itemsize, min(CHUNK, size - start))
            for i, size in enumerate(sizes)
            for start in range(0, max(size, 1), CHUNK)
        ]
        self._work = WorkList(np.array(rows, dtype=np.int64))
        self._table_at = self.survey.table.ctypes.data
        self._sizes = np.array(sizes)
        self._kernels: dict[Variant, NativeFunction] = {}
        self._is_large = sum(sizes) >= SHARED_FROM
        self._judged = b"", False  # the addresses last looked at for overlap, and what was found

    def prepare(self, coefficients: Coefficients, specialise: Specialise) -> list[Job]:
        """What the coming step has to do: one job for each number of steps taken, most often a single one.

        Args:
            coefficients: the coefficients of the step that follows ``age`` steps.
            specialise: which variant of the rule some coefficients ask for.

        Raises:
            CompilationError: a kernel cannot be compiled; nothing has been changed.
        """
        survey = self.survey
        if survey.same_age:
            return [self._job(self._work, coefficients(survey.ages.item(0)), specialise)]
        ages = survey.ages[self._work.rows[:, 0]]
        return [
            self._job(WorkList(self._work.rows[ages == age]), coefficients(age), specialise)
            for age in np.unique(ages).tolist()
        ]

    def _job(self, work: WorkList, values: Mapping[str, Any], specialise: Specialise) -> Job:
        variant = specialise(values)
        function = self._kernels.get(variant)
        if function is None:
            function = self._kernels[variant] = kernel(variant, self._dtype, self._step_dtype)
        return function, work, array("d", [values[name] for name in variant.scalars] or [0.0])

    def step(self, jobs: list[Job]) -> None:
        """Update all parameters and states in place, as prepared."""
        shared = self._is_large and torch.get_num_threads() > 1 and not self._overlap()
        for function, work, scalars in jobs:
            addresses = self._table_at, work.address, scalars.buffer_info()[0]
            if shared:
                share(partial(function, *addresses), work.pieces)
            else:
                function(*addresses, 0, work.length)
        if not self._counts_steps:
            self.survey.ages.fill(1)
        torch.autograd.graph.increment_version(self.survey.tensors)

    def _overlap(self) -> bool:
        """Whether two tensors share memory: then the order of updates counts, and one thread does it."""
        addresses = self.survey.table.tobytes()
        if addresses != self._judged[0]:
            self._judged = addresses, self._judge_overlap()
        return self._judged[1]

    def _judge_overlap(self) -> bool:
        width = self.survey.table.shape[1] - self._counts_steps
        starts = self.survey.table[:, :width].ravel()
        stops = starts + np.repeat(self._sizes * self._dtype.itemsize, width)
        order = np.argsort(starts)
        return bool((stops[order][:-1] > starts[order][1:]).any())


def kernel(variant: Variant, dtype: torch.dtype, step_dtype: torch.dtype | None) -> NativeFunction:
    """Compile a variant of a rule, or take it from the cache.

    Raises:
        CompilationError: it cannot be compiled.
    """
    real, step_real = DTYPES[dtype], DTYPES.get(step_dtype) if step_dtype else None
    text = kernel_source(variant, counts_steps=step_real is not None)
    name = "".join(c if c.isalnum() else "_" for c in variant.formula.rule.__qualname__)
    inputs = "\n".join((variant.formula.identity, real, str(step_real), text, _OWN_CODE))
    return native(
        name, inputs, lambda: _build(variant.formula.rule, text, real, step_real), 5, holds_gil=False
    )


_OWN_CODE = repr(pkgutil.get_data(__package__, "cpu.py"))


def _build(rule: Rule, source: str, real: str, step_real: str | None) -> Callable[..., Any]:
    import numba

    from .intrinsics import pointer_to

    single = real == "float32"
    names = {
        "__name__": __name__,
        "integers": pointer_to(numba.int64),
        "doubles": pointer_to(numba.float64),
        "reals": pointer_to(getattr(numba, real)),
        "steps": pointer_to(getattr(numba, step_real or "float32")),
        "real": getattr(np, real),
        "rule": bind(
            rule,
            np,
            numba.njit(inline="always", error_model="numpy"),
            # A Python number in the formula would make numba compute in double precision.
            real=np.float32 if single else None,
        ),
    }
    exec(source, names)
    function: Callable[..., Any] = names["kernel"]
    return function


def kernel_source(variant: Variant, *, counts_steps: bool) -> str:
    """The loop around the rule: for each entry of the work list, each element, read, apply, write."""
    kept, fixed = variant.states, variant.fixed
    width = 2 + len(kept) + counts_steps
    # Prefixes keep a rule's names apart from the loop's own.
    tensors = ["p", "g", *(f"state_{name}" for name in kept)]
    arguments = [
        repr(fixed[name]) if name in fixed else f"state_{name}[i]" if name in kept else f"number_{name}"
        for name in variant.formula.arguments
    ]
    results = [f"state_{name}[i]" if name in kept else "_" for name in variant.formula.states]
    gradient = "-g[i]" if variant.maximize else "g[i]"
    lines = [
        "def kernel(table, work, coefficients, first, last):",
        "    table, work, coefficients = integers(table), integers(work), doubles(coefficients)",
        *(f"    number_{name} = real(coefficients[{c}])" for c, name in enumerate(variant.scalars)),
        "    for w in range(first, last):",
        f"        row, offset, n = work[3 * w] * {width}, work[3 * w + 1], work[3 * w + 2]",
        *(f"        {name} = reals(table[row + {c}] + offset)" for c, name in enumerate(tensors)),
        "        for i in range(n):",
        f"            {', '.join(['p[i]', *results])} = rule({', '.join(['p[i]', gradient, *arguments])})",
    ]
    if counts_steps:
        lines += [
            "        if offset == 0:",
            f"            step = steps(table[row + {width - 1}])",
            "            step[0] += 1",
        ]
    return "\n".join(lines) + "\n"
