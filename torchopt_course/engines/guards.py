"""Guards: is all still as it was when a bucket was planned? Asked of every tensor before every step.

A fused step writes through addresses, so it must know that each address is still right. Between two steps
anything can have happened: ``p.data = ...``, ``module.to(...)``, ``load_state_dict``, a state tensor
replaced, a gradient of another layout. The questions:

- has parameter i a gradient now? If not, it is left out of this step and nothing else is asked of it;
- is item i of ``group["params"]`` still this parameter, and does its state still hold these tensors?
- have parameter, gradient and states the device, dtype, shape and strides that were planned for?

Asking each tensor from Python costs more than the update itself, so :mod:`.native.guards` does it in
one compiled loop: Python's C API answers the first two, DLPack's C exchange table (DLPack 1.3) the third,
without a single Python object. :meth:`Guards.look_from_python` is the same in Python: what the compiled loop
must say, and what is done where there is none. Along the way the addresses are written down for the kernel,
the steps taken so far, and which tensors the step is going to write to.

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
from torch.nn import Parameter

from .layout import strides_agree
from .native import frame as f
from .native import step as native
from .native.compiler import NoWord
from .same_tensors import SameTensors

PLAIN = frozenset({Tensor, Parameter})


class Guards:
    """The guards of one bucket: tensors of one dtype in one parameter group.

    Args:
        positions: where each parameter stands in ``group["params"]``.
        params: the parameters, contiguous in memory in some order of their dimensions.
        state: for each of ``params`` that has states, its states by name.
        names: the states that the rule reads and writes.
        scales: those of states of 8 bits, which have shapes of their own.
        grad_dtype: that of all gradients.
        counts_steps: whether the states also hold a ``"step"`` (0-d, float32 or float64, all on one device).
        strides_count: whether all must stay laid out in memory like the parameter was.
        keeps_gradients: whether they are handed on in ``read``: a kernel needs only their addresses, but
            while it lets other threads of Python run one of these may drop them.

    Attributes:
        frame: the words that compiled code reads and writes, see :mod:`.native.frame`.
        table: addresses, one row a parameter: p, g, states, and the step where there is one.
        ages: the steps that each parameter has taken, as its ``"step"`` on the CPU says. Where steps are
            not counted the caller keeps them here; steps on another device are not read.
        absent: not zero for each parameter that has no gradient in the coming step; in its row of the
            table nothing can be relied on.
        written: all that the coming step writes to: of each parameter that has a gradient, itself, its
            states and its step. Empty it.
        read: their gradients, where they are kept. Empty it.
    """

    def __init__(
        self,
        positions: Sequence[int],
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        names: tuple[str, ...],
        scales: tuple[str, ...],
        *,
        grad_dtype: torch.dtype,
        counts_steps: bool,
        strides_count: bool,
        keeps_gradients: bool,
    ) -> None:
        self._positions = positions
        self._columns = columns = (*names, *scales, *(["step"] if counts_steps else []))
        self._n_states, self._n_scales = len(names) + len(scales), len(scales)
        self._names = np.array([id(name) for name in columns], dtype=np.int64)
        self.table = np.zeros((len(params), 2 + len(columns)), dtype=np.int64)
        self.ages = np.ones(len(params))
        self.absent = np.zeros(len(params), dtype=np.int64)
        self.written: list[Tensor] = []
        self.read: list[Tensor] = []
        self._targets: frozenset[int] = frozenset()  # where parameters and states lie
        self._scratch = np.zeros(3 + f.VIEW_WORDS, dtype=np.int64)
        self._likeness = [_likeness(param) for param in params]
        step = state[params[0]]["step"] if counts_steps else None
        self._step_likeness = None if step is None else _likeness(step)
        self._age_bits = torch.finfo(step.dtype).bits if step is not None and step.device.type == "cpu" else 0
        self._grad_dtype = grad_dtype
        self._dtypes = [state[params[0]][name].dtype for name in names]
        self._scale_likeness = [[_likeness(state[param][name]) for name in scales] for param in params]

        self._expected = np.zeros((len(params), f.FIRST_STATE + 2 * len(columns)), dtype=np.int64)
        self._expected[:, f.POSITION] = positions
        self._expected[:, f.KIND] = [id(type(param)) for param in params]
        self._is_plain_python = not native.can_look()
        if not self._is_plain_python:
            self._write_layouts(params, state, step)
        self.expect(params, state)

        self.frame = np.zeros(f.BUCKET_WORDS, dtype=np.int64)
        self.address = int(self.frame.ctypes.data)
        for word, value in {
            f.COUNT: len(params),
            f.STATES: self._n_states,
            f.COLUMNS: len(columns),
            f.AGE_BITS: self._age_bits,
            f.EXPECTED: self._expected.ctypes.data,
            f.NAMES: self._names.ctypes.data,
            f.TABLE: self.table.ctypes.data,
            f.AGES: self.ages.ctypes.data,
            f.ABSENT: self.absent.ctypes.data,
            f.SCRATCH: self._scratch.ctypes.data,
            f.WRITTEN: id(self.written),
            f.READ: id(self.read) if keeps_gradients else 0,
            f.SELF: self.address,
            f.STRIDES_COUNT: strides_count,
            f.COUNTS_STEPS: counts_steps,
        }.items():
            self.frame[word] = value
        self.frame[f.GONE] = id(self._same.gone)

    def _write_layouts(
        self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]], step: Tensor | None
    ) -> None:
        """Write down what compiled code compares: each is laid out as its parameter, in its own dtype."""
        layouts = [native.layout(param) for param in params]
        starts = np.cumsum([0, *map(len, layouts)])[:-1]
        words = np.array([word for words in layouts for word in words], dtype=np.int64)
        self._layouts = {params[0].dtype: words}
        for dtype in {self._grad_dtype, *self._dtypes}.difference(self._layouts):
            others = self._layouts[dtype] = words.copy()
            ranks = np.array([param.dim() for param in params])
            others[starts + 1] = native.layout(torch.empty((), dtype=dtype, device="cpu"))[1] + ranks
        self._step_layout = np.array([] if step is None else native.layout(step), dtype=np.int64)
        places = [self._layouts[dtype].ctypes.data + 8 * starts for dtype in self._dtypes]
        self._scale_layouts = [
            np.array([native.layout(state[param][name]) for param in params], dtype=np.int64)
            for name in self._columns[len(self._dtypes) : self._n_states]
        ]
        places += [
            words.ctypes.data + words.strides[0] * np.arange(len(params)) for words in self._scale_layouts
        ]
        steps = [] if step is None else [np.full(len(params), self._step_layout.ctypes.data)]
        self._expected[:, f.LAYOUT] = words.ctypes.data + 8 * starts
        self._expected[:, f.GRAD_LAYOUT] = self._layouts[self._grad_dtype].ctypes.data + 8 * starts
        for column, addresses in enumerate([*places, *steps], f.FIRST_STATE + len(self._columns)):
            self._expected[:, column] = addresses

    def expect(self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Expect these objects from now on, with the layouts that were planned for.

        Args:
            params: the bucket's parameters, in its order.
            state: as in the constructor.

        Raises:
            KeyError: a state is missing.
        """
        columns = [[state[param][name] for param in params] for name in self._columns]
        self._expected[:, f.PARAM] = [id(param) for param in params]
        for column, tensors in enumerate(columns, f.FIRST_STATE):
            self._expected[:, column] = [id(tensor) for tensor in tensors]
        self._same = SameTensors([tensor for tensors in columns for tensor in tensors])
        if "frame" in self.__dict__:
            self.frame[f.GONE] = id(self._same.gone)

    def look(
        self, params: list[Tensor], grads: list[Tensor | None], state: Mapping[Tensor, dict[str, Any]]
    ) -> int:
        """Look again; ``HOLDS``, ``CHANGED`` or ``GRADIENT_LAYOUT`` (only strides of gradients changed).

        Args:
            params, grads: the group's parameters and their gradients as they are now.
            state: the optimizer's.
        """
        if self._is_plain_python or not native.is_ready():
            return self.look_from_python(params, grads, state)
        known = state if isinstance(state, dict) else dict(state.items())
        try:
            return native.look(self.address, params, grads, known)
        except Exception:  # a tensor without memory, on a device unknown to DLPack, ...
            return f.CHANGED

    def look_from_python(
        self, params: list[Tensor], grads: list[Tensor | None], state: Mapping[Tensor, dict[str, Any]]
    ) -> int:
        """The definition of :meth:`look`."""
        self.written.clear()
        self.read.clear()
        verdict = f.HOLDS
        for i, position in enumerate(self._positions):
            param, grad, expected = params[position], grads[position], self._expected[i]
            self.absent[i] = grad is None
            if grad is None:
                continue
            own = state.get(param, {}) if self._columns else {}
            if type(own) is not dict or not {type(param), type(grad)} <= PLAIN or grad.is_neg():
                return f.CHANGED
            columns: list[Any] = [own.get(name) for name in self._columns]
            ids = expected[f.FIRST_STATE : f.FIRST_STATE + len(columns)]
            if [id(param), *map(id, columns)] != [expected[f.PARAM], *ids]:
                return f.CHANGED
            if self._same.any_is_gone or (not self._columns and (param.is_neg() or param.is_inference())):
                return f.CHANGED
            n_alike = self._n_states - self._n_scales
            if [*map(_likeness, columns[n_alike : self._n_states])] != self._scale_likeness[i]:
                return f.CHANGED
            alike: list[Tensor] = [param, grad, *columns[:n_alike]]
            device, dtype, shape, strides = self._likeness[i]
            for tensor, kind in zip(alike, (dtype, self._grad_dtype, *self._dtypes), strict=True):
                if _likeness(tensor)[:3] != (device, kind, shape):
                    return f.CHANGED
            if any(_likeness(step) != self._step_likeness for step in columns[self._n_states :]):
                return f.CHANGED
            strict = self.frame[f.STRIDES_COUNT]
            moved = [bool(strict) and not strides_agree(shape, tensor.stride(), strides) for tensor in alike]
            if any(moved[:1] + moved[2:]):
                return f.CHANGED
            verdict = f.GRADIENT_LAYOUT if moved[1] else verdict
            tensors = (param, grad, *columns)
            addresses = [tensor.data_ptr() for tensor in tensors]
            if any(tensor.numel() and not at for tensor, at in zip(tensors, addresses, strict=True)):
                return f.CHANGED  # its storage was resized to nothing
            targets = [0, *range(2, 2 + self._n_states)]
            self.frame[f.GRADS_MOVED] |= int(addresses[1] != self.table[i, 1])
            self.frame[f.TARGETS_MOVED] |= int(any(addresses[k] != self.table[i, k] for k in targets))
            self.table[i] = addresses
            self.written += [param, *columns]
            if self.frame[f.READ]:
                self.read.append(grad)
            if self._age_bits:
                self.ages[i] = columns[-1].item()
        there = self.ages[self.absent == 0]
        self.frame[f.PRESENT], self.frame[f.SAME_AGE] = len(there), len(np.unique(there)) <= 1
        return verdict

    @property
    def have_moved(self) -> bool:
        """Whether parameters or states have come to other places, which may be those of others."""
        return bool(self.frame[f.TARGETS_MOVED])

    def refuse_shared_memory(self) -> None:
        """Nobody's memory may be another's; gradients are only read, and may share among themselves.

        Raises:
            NoWord: an engine that looks at all before it writes to any cannot step them.
        """
        if not self.frame[f.TARGETS_MOVED] and not self.frame[f.GRADS_MOVED]:
            return
        table = self.table if self.present == len(self.table) else self.table[self.absent == 0]
        if self.frame[f.TARGETS_MOVED]:
            places = table[:, [0, *range(2, 2 + self._n_states - self._n_scales)]].ravel().tolist()
            self._targets = frozenset(places) - {0}  # empty tensors are nowhere
            if len(self._targets) + places.count(0) < len(places):
                raise NoWord("its memory is another's too")
            if self.present == len(self.table):
                self.frame[f.TARGETS_MOVED] = 0
        if not self._targets.isdisjoint(table[:, 1].tolist()):
            raise NoWord("its memory is another's too")
        self.frame[f.GRADS_MOVED] = 0

    @property
    def same_age(self) -> bool:
        """Whether all parameters that are stepped have taken equally many steps."""
        return bool(self.frame[f.SAME_AGE])

    @property
    def present(self) -> int:
        """How many parameters have a gradient."""
        return int(self.frame[f.PRESENT])


def _likeness(tensor: Any) -> tuple[Any, ...]:
    """What must stay as it was."""
    if not isinstance(tensor, Tensor):
        return (None,)
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()
