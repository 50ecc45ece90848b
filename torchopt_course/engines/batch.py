"""What the fused engines have in common: many tensors, one pass, planned once, checked before each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .rules import Variant
from .same_tensors import SameTensors
from .survey import Survey

Words = np.ndarray[Any, np.dtype[np.int64]]
# The coefficients of the step that follows ``age`` steps; the variant of the rule that they ask for.
Coefficients = Callable[[Any], Mapping[str, Any]]
Specialise = Callable[[Mapping[str, Any]], Variant]
Job = Callable[[], object]


class Scaling(NamedTuple):
    """What ``GradScaler`` tells an optimizer that unscales its gradients itself.

    Attributes:
        grad_scale: what the gradients have been multiplied with; ``None`` if that is undone already.
        found_inf: not zero if a gradient has overflowed: then nothing is to be updated.
    """

    grad_scale: Tensor | None
    found_inf: Tensor


class Batch:
    """The tensors of one device and dtype in one parameter group, planned for one fused pass a step.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters themselves, dense and of one dtype in ``DTYPES``.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes.
        counts_steps: whether the states also hold a ``"step"``.
        ages: how many steps each parameter has taken, where steps are not counted: 0 or 1 for "some".

    Attributes:
        survey: tells whether the plan still holds; its look must precede each :meth:`prepare`.
    """

    ENGINE: ClassVar[str]  # what the engine is called in reports
    DTYPES: ClassVar[frozenset[torch.dtype]]
    CHUNK: ClassVar[int]  # elements of one entry of the work list
    HEEDS_SCALING: ClassVar[bool]  # whether the kernel itself unscales gradients and stops at an overflow

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        *,
        counts_steps: bool,
        ages: Sequence[int],
    ) -> None:
        self.positions = positions
        self.survey = Survey(positions, params, state, names, counts_steps=counts_steps)
        self.survey.ages[:] = ages
        self._counts_steps = counts_steps
        self._dtype = params[0].dtype
        self._device = params[0].device
        steps = [state[param]["step"] for param in params] if counts_steps else []
        self._step_dtype = steps[0].dtype if counts_steps else None
        self._steps = SameTensors(steps)
        self._sizes = np.array([param.numel() for param in params])
        self._rows: Words = np.array(
            [
                (i, start * self._dtype.itemsize, min(self.CHUNK, size - start))
                for i, size in enumerate(self._sizes.tolist())
                for start in range(0, max(size, 1), self.CHUNK)
            ],
            dtype=np.int64,
        )
        self._whole = self._work_list(self._rows)
        self._pattern = b""
        self._split: list[tuple[float, Any]] = []
        self._set_up()

    def _set_up(self) -> None:
        """What an engine keeps besides, as long as the plan holds."""
        raise NotImplementedError

    def prepare(self, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None) -> Job:
        """What the coming step has to do; nothing is changed before it is called.

        Raises:
            CompilationError: a kernel cannot be compiled.
        """
        raise NotImplementedError

    def _work_list(self, rows: Words) -> Any:
        """What the engine's kernel goes through, row by row: which tensor, from which byte on, how many."""
        raise NotImplementedError

    def _parts(self, *, by_age: bool = True) -> list[tuple[float, Any]]:
        """The numbers of steps taken, each with its work list; most often one, for all tensors.

        Parameters without a gradient are in none of them.
        """
        ages = self.survey.ages if by_age else np.ones_like(self.survey.ages)
        if self.survey.present == len(ages) and (self.survey.same_age or not by_age):
            return [(ages.item(0), self._whole)]
        if not self.survey.present:
            return []
        stepped = self.survey.absent == 0
        if not np.isfinite(
            ages[stepped]
        ).all():  # someone has written it into a "step": torch takes it as it is
            each = [(ages.item(i), self._rows[:, 0] == i) for i in np.flatnonzero(stepped)]
            return [(age, self._work_list(self._rows[mine])) for age, mine in each]
        oldest = ages[stepped].max()
        # Parameters that are all stepped keep their distance in age, so the parts stay the same for long.
        behind = np.where(stepped, oldest - ages, -1)
        pattern = behind.tobytes()
        if pattern != self._pattern:
            of_row, lags = behind[self._rows[:, 0]], np.unique(behind[stepped])
            self._split = [(lag, self._work_list(self._rows[of_row == lag])) for lag in lags]
            self._pattern = pattern
        return [(float(oldest - lag), work) for lag, work in self._split]

    def _settle(self) -> None:
        """Tell autograd what has been written behind its back, and remember that a step was taken."""
        written = self.survey.written
        if not self._counts_steps:
            self.survey.ages[self.survey.absent == 0] = 1
        torch.autograd.graph.increment_version(written)
        written.clear()
