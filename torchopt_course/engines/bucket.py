"""What the fused engines have in common: many tensors, one pass, planned once, guarded before each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .guards import Guards
from .rules import Variant

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


class Bucket(ABC):
    """The tensors of one device and dtype in one parameter group, planned for one fused pass a step.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters themselves, dense and of one dtype in ``DTYPES``.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes.
        counts_steps: whether the states also hold a ``"step"``.
        ages: how many steps each parameter has taken, where steps are not counted: 0 or 1 for "some".

    Attributes:
        guards: tell whether the plan still holds; their look must precede each :meth:`prepare`.

    Raises:
        CompilationError: there is no compiler, or it fails.
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
        self.guards = Guards(positions, params, state, names, counts_steps=counts_steps)
        self.guards.ages[:] = ages
        self._counts_steps = counts_steps
        self._dtype = params[0].dtype
        self._device = params[0].device
        self._step_dtype = state[params[0]]["step"].dtype if counts_steps else None
        self._sizes = np.array([param.numel() for param in params], dtype=np.int64)
        self._rows: Words = np.array(
            [
                (i, start * self._dtype.itemsize, min(self.CHUNK, size - start))
                for i, size in enumerate(self._sizes.tolist())
                for start in range(0, max(size, 1), self.CHUNK)
            ],
            dtype=np.int64,
        )

    @abstractmethod
    def prepare(self, coefficients: Coefficients, specialise: Specialise, scaling: Scaling | None) -> Job:
        """What the coming step has to do; nothing is changed before it is called.

        Raises:
            CompilationError: a kernel cannot be compiled.
        """
