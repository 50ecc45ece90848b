"""The interface of an engine: the parameters of a group that are updated together, by one way of doing it.

An engine is a subclass of :class:`Bucket`. It says which parameters it can take (:meth:`~Bucket.refuses`) and
what they must have in common, and it prepares their update in each step. To add one, write such a class and
put it where its speed belongs into :data:`torchopt_course.engines.ENGINES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .guards import Guards
from .local import LocalGroup, State
from .native.compiler import NoWord
from .native.update import GIL_FREE_FROM
from .rule.number_program import NumberProgram
from .rule.parsed import Specialization
from .rule.searches import Wanted

# The coefficients of the step that follows ``age`` steps; the specialization of the rule that they ask for.
Coefficients = Callable[[Any], Mapping[str, Any]]
Specialize = Callable[[Mapping[str, Any]], Specialization]
Update = Callable[[], object]


class GroupOptions(NamedTuple):
    """What a parameter group's options ask of the engines.

    Attributes:
        states: the states that the rule reads and writes.
        refusal: why no fused engine may take the group, if so.
        lists: whether the rest goes to the foreach engine; ``None``: where torch would do so.
        differentiable: whether autograd follows the step.
        is_followed: what else follows each operation of the step, if anything.
        rounding: how the results of a wide step are rounded, see :mod:`.storage`; ``None``: no wide step.
        state_dtypes: the dtypes that are wanted for states, where some are.
        capturable: whether step counts must lie where their parameters do.
    """

    states: tuple[str, ...]
    refusal: str | None
    lists: bool | None
    differentiable: bool
    is_followed: bool
    rounding: str | None = None
    state_dtypes: Hashable = None
    capturable: bool = False


class Candidate(NamedTuple):
    """A parameter with all that belongs to it, for engines to look at.

    Attributes:
        grad: ``None`` if it has none at present: it may have one in the next step.
        states: those that the rule reads and writes, by name; then those that keep rounding errors.
        step: its step count, where steps are counted.
        scales: those of states of 8 bits, by name.
    """

    param: Tensor
    grad: Tensor | None
    states: State
    step: Tensor | None
    scales: State

    @property
    def grad_dtype(self) -> torch.dtype:
        """That of its gradient, or of the one that it will get: torch lets parameters ask for another one."""
        if self.grad is not None:
            return self.grad.dtype
        asked = getattr(self.param, "grad_dtype", None) if self.param.is_leaf else None
        return asked or self.param.dtype


class Scaling(NamedTuple):
    """What ``GradScaler`` tells an optimizer that unscales its gradients itself.

    Attributes:
        grad_scale: what the gradients have been multiplied with; ``None`` if that is undone already.
        found_inf: not zero if a gradient has overflowed: then nothing is to be updated.
    """

    grad_scale: Tensor | None
    found_inf: Tensor


class Part(NamedTuple):
    """What some tensors give to numbers over several, see :mod:`.several`.

    Attributes:
        wanted: the numbers; none if these tensors need no more of them.
        values: for each of them, a tensor of one dimension in double precision, with a number of each tensor,
            or one number of all.
        size: how many elements the tensors have.
        is_last: whether these tensors need no further search.
    """

    wanted: tuple[Wanted, ...]
    values: Sequence[Tensor | float] = ()
    size: int = 0
    is_last: bool = True


class Ahead(NamedTuple):
    """How a bucket is updated without :meth:`Bucket.prepare`, in all steps for which its guards hold.

    Attributes:
        words: of the bucket's frame: the kernel that compiled code is to run.
        update: where there is no kernel: given the numbers of the rule's program, what the coming step has to
            do; ``None`` if it must be prepared for itself.
        searches: the kernels of the rule's searches, as ``words``, where there are any.
        registers: of the program of the coefficients, what ``update`` is given after those numbers.
    """

    words: Mapping[int, int]
    update: Callable[[Sequence[float]], Update | None] | None = None
    searches: Sequence[Mapping[int, int]] = ()
    registers: Sequence[int] = ()


class Size(NamedTuple):
    """How much is updated in a step: tensors, and elements of all of them."""

    tensors: int
    elements: int


class Bucket(ABC):
    """Parameters of one group for one engine, planned once and guarded before each step.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters themselves, none of which the engine refuses.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes, then those that keep rounding errors.
        scales: the names of the scales of states of 8 bits.
        grad_dtype: that of all gradients.
        rounding: as in :class:`GroupOptions`.
        counts_steps: whether the states also hold a ``"step"``.
        ages: how many steps each parameter has taken, where steps are not counted: 0 or 1 for "some".

    Attributes:
        guards: tell whether the plan still holds; their look must precede each :meth:`prepare`.

    Raises:
        CompilationError: there is no compiler, or it fails.
    """

    ENGINE: ClassVar[str]  # what the engine is called in reports
    IS_FUSED: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def serves(cls, device: str) -> bool:
        """Whether the engine is one for such devices."""

    @classmethod
    @abstractmethod
    def refuses(cls, candidate: Candidate, options: GroupOptions) -> str | None:
        """Why the engine cannot take a parameter, or could not if it had a gradient; ``None`` if it can."""

    @classmethod
    def alike(cls, candidate: Candidate) -> Hashable:
        """What parameters must have in common to be updated together."""
        step = candidate.step
        counted = () if step is None else (step.device, step.dtype)
        stored = tuple(state.dtype for state in candidate.states.values())
        return (candidate.param.device, candidate.param.dtype, candidate.grad_dtype, stored, *counted)

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, State],
        names: tuple[str, ...],
        scales: tuple[str, ...],
        *,
        grad_dtype: torch.dtype,
        rounding: str | None,
        counts_steps: bool,
        ages: Sequence[int],
    ) -> None:
        self.positions = positions
        self._sizes = np.array([param.numel() for param in params], dtype=np.int64)
        self.guards = Guards(
            positions,
            params,
            state,
            names,
            scales,
            grad_dtype=grad_dtype,
            counts_steps=counts_steps,
            strides_count=self.IS_FUSED,
            keeps_gradients=not self.IS_FUSED or self._sizes.sum() >= GIL_FREE_FROM,
        )
        self.guards.ages[:] = ages
        self._names, self._scales = names, scales
        self._counts_steps = counts_steps
        self._device, self._dtype = params[0].device, params[0].dtype
        self._step_dtype = state[params[0]]["step"].dtype if counts_steps else None
        states = [state[params[0]][name].dtype for name in (*names, *scales)]
        # As p, g and states are stored: the same for all of `params`.
        self._stored = (self._dtype, grad_dtype, *states)
        self._rounding = rounding
        self._set_up(params, state)

    def _set_up(self, params: Sequence[Tensor], state: Mapping[Tensor, State]) -> None:  # noqa: B027
        """Make what an engine keeps besides, for as long as the plan holds."""

    @abstractmethod
    def prepare(
        self, local: LocalGroup, coefficients: Coefficients, specialize: Specialize, scaling: Scaling | None
    ) -> Update:
        """What the coming step has to do; nothing is changed before it is called.

        Raises:
            CompilationError: the engine cannot do it: a slower one must.
        """

    def prepare_ahead(self, specialization: Specialization, coefficients: NumberProgram) -> Ahead:
        """How to update as the rule says, with its options fixed.

        Args:
            coefficients: what they are computed by.

        Raises:
            CompilationError: each step must be prepared for itself.
        """
        raise NoWord(f"the {self.ENGINE} prepares each step for itself")

    @abstractmethod
    def search(
        self,
        number: int,
        local: LocalGroup,
        coefficients: Coefficients,
        specialize: Specialize,
        scaling: Scaling | None,
    ) -> list[Part]:
        """What its tensors give to numbers over several, in the search of that number; changes nothing.

        Raises:
            CompilationError: the engine cannot do it: a slower one must.
        """

    @property
    def counts_on_device(self) -> bool:
        """Whether it counts steps itself, on a device where the host does not read them."""
        return False

    @property
    def heeds_scaling(self) -> bool:
        """Whether it unscales gradients itself and stops at an overflow."""
        return False

    @property
    def has_moved(self) -> bool:
        """Whether its tensors may share memory since they were planned, and it could not update them so."""
        return self.guards.have_moved

    @property
    def size(self) -> Size:
        """That of the coming step."""
        present = self.guards.absent == 0
        return Size(int(present.sum()), int(self._sizes[present].sum()))

    @property
    def present(self) -> list[int]:
        """The positions of the parameters that have a gradient in the coming step."""
        absent = self.guards.absent.tolist()
        return [position for position, gone in zip(self.positions, absent, strict=True) if not gone]

    @property
    def age(self) -> Any:
        """The most steps that a parameter has taken that has a gradient."""
        return float(self.guards.ages[self.guards.absent == 0].max())

    def _by_age(self) -> Iterator[tuple[float, np.ndarray[Any, np.dtype[np.bool_]]]]:
        """The numbers of steps taken so far, with those parameters that have a gradient."""
        ages, present = self.guards.ages, self.guards.absent == 0
        if self.guards.same_age:
            if present.any():
                yield float(ages[present][0]), present
            return
        for age in np.unique(ages[present]).tolist():
            # Somebody may have written NaN into a "step": torch takes it as it is.
            yield age, present & (ages == age if age == age else np.isnan(ages))
