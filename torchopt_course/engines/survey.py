"""A look at every tensor of a batch before every step: is all still as it was when the batch was planned?

A fused step writes through addresses, so it must know that each address is still right. Between two steps
anything can have happened: ``p.data = ...``, ``module.to(...)``, ``load_state_dict``, a state tensor
replaced, a gradient of another layout. Asking each tensor from Python costs more than the update itself.
This is the same set of questions in one compiled loop:

- has parameter i a gradient now? If not, it is left out of this step and nothing else is asked of it;
- is item i of ``group["params"]`` still this parameter, and does its state still hold these tensors?
- have parameter, gradient and states the device, dtype, shape and strides that were planned for?

Python's C API answers the first two. The third is what DLPack's C exchange table is for (DLPack 1.3,
``torch.Tensor.__dlpack_c_exchange_api__``): address, dtype, shape and strides of a tensor without a single
Python object. Along the way the loop writes down the addresses for the kernel, the steps taken so far and
which tensors the step is going to write to.

Nothing here keeps a tensor of the user's alive: tensors are known by their ids. When a state is gone a weak
reference tells it, before the id comes to mean something else; a new parameter under an old one's id has no
states, or else all of those that were planned for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .look import (
    AGE_BITS,
    CHANGED,
    COLUMNS,
    COUNT,
    EXPECTED,
    FIRST_STATE,
    LAYOUT,
    PARAM,
    POSITION,
    PRESENT,
    SAME_AGE,
    STATE_POSITION,
    STATES,
    STEP_LAYOUT,
    VERDICT,
    VIEW_WORDS,
    compiled_look,
    layout,
)
from .same_tensors import SameTensors


class Survey:
    """The survey of one batch: tensors of one dtype in one parameter group.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters, contiguous in memory in some order of their dimensions.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes.
        counts_steps: whether the states also hold a ``"step"`` (0-d, float32 or float64, all on one device).

    Attributes:
        table: addresses, one row a parameter: p, g, states, and the step where there is one.
        ages: the steps that each parameter has taken, as its ``"step"`` on the CPU says. Where steps are
            not counted the caller keeps them here; steps on another device are not read.
        absent: not zero for each parameter that has no gradient in the coming step; in its row of the
            table nothing can be relied on.
        written: all that the coming step writes to. The caller empties it.
    """

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        *,
        counts_steps: bool,
    ) -> None:
        self._look = compiled_look()
        self._positions = positions
        self._columns = columns = (*names, "step") if counts_steps else names
        self._names = np.array([id(name) for name in columns], dtype=np.int64)
        self.table = np.zeros((len(params), 2 + len(columns)), dtype=np.int64)
        self.ages = np.ones(len(params))
        self.absent = np.zeros(len(params), dtype=np.int64)
        self.written: list[Tensor] = []
        self._view = np.zeros(VIEW_WORDS, dtype=np.int64)

        layouts: list[int] = []
        self._expected = np.zeros((len(params), FIRST_STATE + len(columns)), dtype=np.int64)
        for row, position, param in zip(self._expected, positions, params, strict=True):
            row[POSITION], row[LAYOUT] = position, len(layouts)
            layouts += layout(param)
        self._layouts = np.array(layouts, dtype=np.int64)
        self._expected[:, LAYOUT] = self._layouts.ctypes.data + 8 * self._expected[:, LAYOUT]
        self.expect(params, state)

        step = state[params[0]]["step"] if counts_steps else None
        age_bits = torch.finfo(step.dtype).bits if step is not None and step.device.type == "cpu" else 0
        self._step_layout = np.array([] if step is None else layout(step), dtype=np.int64)
        self._frame = np.zeros(1 + STEP_LAYOUT, dtype=np.int64)
        self._frame[[COUNT, STATES, COLUMNS, AGE_BITS]] = len(params), len(names), len(columns), age_bits
        arrays = (
            self._expected,
            self._names,
            self.table,
            self.ages,
            self.absent,
            self._view,
            self._step_layout,
        )
        self._frame[EXPECTED:] = [array.ctypes.data for array in arrays]
        self._frame_at = self._frame.ctypes.data
        self._read = self._frame.item

    def expect(self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Expect these objects from now on, with the layouts that were planned for.

        Args:
            params: the batch's parameters, in its order.
            state: as in the constructor.
        """
        tensors: list[Tensor] = []
        self._expected[:, PARAM] = [id(param) for param in params]
        if self._columns:
            place = {id(param): i for i, param in enumerate(state)}
            self._expected[:, STATE_POSITION] = [place[id(param)] for param in params]
            for column, name in enumerate(self._columns, FIRST_STATE):
                of_name = [state[param][name] for param in params]
                self._expected[:, column] = [id(tensor) for tensor in of_name]
                tensors += of_name
        self._same = SameTensors(tensors)

    def look(
        self,
        params: list[Tensor],
        grads: list[Tensor | None],
        keys: list[Tensor],
        states: list[dict[str, Any]],
    ) -> int:
        """Look again; ``HOLDS``, ``CHANGED`` or ``GRADIENT_LAYOUT`` (only strides of gradients changed).

        Args:
            params, grads: the group's parameters and their gradients as they are now.
            keys, states: the optimizer's ``state``, as lists of its keys and its values.
        """
        self.written.clear()
        if self._same.any_is_gone:
            return CHANGED
        try:
            self._look(self._frame_at, id(params), id(grads), id(keys), id(states), id(self.written))
        except Exception:  # a tensor without memory, on a device unknown to DLPack, ...
            return CHANGED
        return self._read(VERDICT)

    @property
    def same_age(self) -> bool:
        """Whether all parameters that are stepped have taken equally many steps."""
        return bool(self._read(SAME_AGE))

    @property
    def present(self) -> int:
        """How many parameters have a gradient."""
        return self._read(PRESENT)
