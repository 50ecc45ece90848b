"""Where the tensors of a bucket lie, as their device reads it: a table of addresses in its memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Words = np.ndarray[Any, np.dtype[np.int64]]

# A training loop gives its gradients a few places in turn: so many tables are kept.
MOST = 8
# What a captured graph reads again in each replay; nobody says when the graph is gone.
_read_by_graphs: list[Tensor] = []


class Table(NamedTuple):
    """Attributes:
    words: on the device.
    aligned: whether all addresses are multiples of 16 bytes.
    """

    words: Tensor
    aligned: bool


class Tables:
    """The tables of a bucket; what is once on the device is never written over.

    Args:
        addresses: what the guards write down, a row for each parameter.
        columns: how many of its columns are addresses of what the kernel reads and writes.
    """

    def __init__(self, addresses: Words, columns: int, device: torch.device) -> None:
        self._addresses, self._columns, self._device = addresses, columns, device
        self._known: dict[bytes, Table] = {}  # the one that was used last comes last
        self._of_search: Table | None = None
        # Pinned memory cannot be had while a graph is captured: some is kept ready.
        self._pinned = pin(addresses) if device.type == "cuda" else None

    def now(self, *, for_search: bool = False) -> Table:
        """That of the addresses as they are now; copied to the device where it is not there.

        Args:
            for_search: whether an update of the same step will ask again.
        """
        key = self._addresses.tobytes()
        table = self._known.pop(key, None)
        if is_captured(self._device):
            return self._captured(table, for_search=for_search)
        if table is None:
            table = Table(upload(self._addresses, self._device), self._are_aligned())
            if len(self._known) == MOST:
                del self._known[next(iter(self._known))]
        self._known[key] = table
        if self._pinned is None and self._device.type == "cuda":
            self._pinned = pin(self._addresses)
        return table

    def _captured(self, known: Table | None, *, for_search: bool) -> Table:
        table, self._of_search = self._of_search, None
        if table is None and known is not None:
            keep_for_graphs(known.words)
            table = known
        elif table is None:
            # The graph repeats this copy in each replay, so the pinned memory is its own from now on.
            pinned = pin(self._addresses) if self._pinned is None else self._pinned
            pinned.copy_(torch.from_numpy(self._addresses))
            keep_for_graphs(pinned)
            self._pinned = None
            table = Table(pinned.to(self._device, non_blocking=True), self._are_aligned())
        # Within one capture they can be copied only once.
        self._of_search = table if for_search else None
        return table

    def _are_aligned(self) -> bool:
        return not bool((self._addresses[:, : self._columns] % 16).any())


def is_captured(device: torch.device) -> bool:
    """Whether what is launched now is written down for a graph instead, and done in its replays."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def keep_for_graphs(*tensors: Tensor) -> None:
    """What a graph reads that is being captured stays where it is."""
    _read_by_graphs.extend(tensors)


def upload(words: Words, device: torch.device) -> Tensor:
    """A copy on the device, for which the host does not wait.

    Raises:
        RuntimeError: a graph is being captured: the copy would be there after its first replay only, and
            later steps, which are not captured, rely on it too.
    """
    if device.type != "cuda":  # Triton's interpreter, which runs on the CPU
        return torch.from_numpy(words.copy())
    if is_captured(device):
        raise RuntimeError(
            "this step cannot be captured in a CUDA graph: it has to tell the device what no step before has "
            "told it. Before the capture take a step with the same options, in which the same parameters "
            "have gradients (rounding='stochastic' draws other bits in each step, and is for no graph)"
        )
    return pin(words).to(device, non_blocking=True)


def pin(words: Words) -> Tensor:
    """A copy that the device can read."""
    return torch.from_numpy(words.copy()).pin_memory()
