"""The foreach engine: the rule over lists of tensors, each operation one ``torch._foreach_*`` call.

For devices without a fused engine, and for ``foreach=True``. The program writes its results in place
(:mod:`.in_place`). Long lists are taken in portions, so that intermediate results never hold more than a
fraction of the parameters' memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

from ..bucket import Candidate, GroupOptions
from . import lists
from .bucket import Columns, OperationsBucket
from .in_place import InPlace, Language

# Of all elements, what part is computed at a time (but no less than the second). Intermediate results of a
# rule are two or three lists at most: in portions, they stay below the memory of one list of all.
PORTION, LEAST_PORTION = 1 / 4, 1 << 18


class ForeachBucket(OperationsBucket):
    """Plain tensors of one device and dtype that are updated together."""

    ENGINE = "foreach engine"

    @property
    def _language(self) -> Language:
        return lists

    @classmethod
    def refuses(cls, candidate: Candidate, options: GroupOptions) -> str | None:
        wished = options.lists
        if wished is None:
            wished = candidate.param.device.type in _get_foreach_kernels_supported_devices()
        return super().refuses(candidate, options) if wished else "lists are not wished for"

    def _run(self, program: InPlace, columns: Columns, numbers: Sequence[float]) -> None:
        rows = _portions(columns, cut=not program.reduces) if program.needs_memory else [columns]
        program.run(rows, numbers)


def _portions(columns: Columns, *, cut: bool) -> Iterator[Columns]:
    """Cut all lists alike, large tensors along their first dimension, into portions of similar size."""
    total = sum(map(Tensor.numel, columns[0]))
    if total <= LEAST_PORTION:
        yield columns
        return
    most = max(LEAST_PORTION, int(PORTION * total))
    portion: list[list[Tensor]] = [[] for _ in columns]
    filled = 0
    for tensors in zip(*columns, strict=True):
        for pieces in zip(*(_pieces(tensor, most) if cut else [tensor] for tensor in tensors), strict=True):
            if filled and filled + pieces[0].numel() > most:
                yield portion
                portion, filled = [[] for _ in columns], 0
            for column, piece in zip(portion, pieces, strict=True):
                column.append(piece)
            filled += pieces[0].numel()
    if filled:
        yield portion


def _pieces(tensor: Tensor, most: int) -> Sequence[Tensor]:
    if tensor.numel() <= most or tensor.shape[0] == 1:
        return [tensor]
    rows = max(1, most * tensor.shape[0] // tensor.numel())
    return torch.split(tensor, rows)
