"""One launch of a kernel: the program that Triton has made, and its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .compiled import BLOCK, Launcher
from .tables import Table


class Launch(NamedTuple):
    """Call it under its device.

    Attributes:
        function: a compiled kernel, see :meth:`.compiled.Kernel.ready`.
        pointers: its arguments that are tensors.
        numbers: those that are numbers.
        reads_table: whether its first pointer is the table of addresses.
    """

    function: Launcher
    pointers: Sequence[Tensor]
    numbers: Sequence[float]
    reads_table: bool

    def again(self, table: Table, numbers: Sequence[float]) -> Launch:
        """The same in another step, for which only some are given numbers."""
        if not self.reads_table:
            return self
        return self._replace(
            pointers=[table.words, *self.pointers[1:]], numbers=numbers if self.numbers else ()
        )

    def __call__(self) -> None:
        self.function(*self.pointers, *self.numbers, BLOCK)


def keep_for_stream(launches: Sequence[Launch]) -> None:
    """What was allocated on one stream and is read on another is not free before that one is done."""
    if not torch.cuda.is_current_stream_capturing():
        stream = torch.cuda.current_stream()
        for tensor in {id(tensor): tensor for launch in launches for tensor in launch.pointers}.values():
            tensor.record_stream(stream)


def current_stream(device: torch.device) -> int:
    """The handle of a device's current stream, which is asked for in each step."""
    return torch._C._cuda_getCurrentRawStream(device.index) if device.type == "cuda" else 0
