"""The foreach engine: the rule over lists of tensors, each operation one ``torch._foreach_*`` call.

For devices without a fused engine, and for ``foreach=True``. The program writes its results in place
(:mod:`.in_place`). Long lists are taken in portions, so that intermediate results never hold more than a
fraction of the parameters' memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .bucket import Job
from .eager import as_real
from .in_place import in_place
from .namespaces import lists
from .plain import are_plain
from .rules import Variant

NAME = "foreach engine"
# Of all elements, what part is computed at a time (but no less than the second). Intermediate results of a
# rule are two or three lists at most: in portions, they stay below the memory of one list of all.
PORTION, LEAST_PORTION = 1 / 4, 1 << 16


def prepare(
    variant: Variant, columns: Sequence[Sequence[Tensor]], coefficients: Mapping[str, Any]
) -> Job | None:
    """What updates many parameters of one device and dtype, and their states; nothing is changed yet.

    Args, returns: as :func:`.eager.prepare`. Coefficients may be tensors of one element, which are read.
    """
    assert variant.program is not None, "asked before"
    program = in_place(variant.program, variant.states, lists)
    read = {
        name: value.item() if isinstance(value, Tensor) else value for name, value in coefficients.items()
    }
    numbers = program.numbers(variant.program.values(read), columns[0][0].dtype)
    if numbers is None or not are_plain(columns):
        return None
    if columns[0][0].is_complex():
        columns = [[as_real(tensor) for tensor in column] for column in columns]
    return partial(program.run, _portions(columns), numbers)


def _portions(columns: Sequence[Sequence[Tensor]]) -> Iterator[Sequence[Sequence[Tensor]]]:
    """Cut all lists alike, large tensors along their first dimension, into portions of similar size."""
    total = sum(map(Tensor.numel, columns[0]))
    if total <= LEAST_PORTION:
        yield columns
        return
    most = max(LEAST_PORTION, int(PORTION * total))
    portion: list[list[Tensor]] = [[] for _ in columns]
    filled = 0
    for tensors in zip(*columns, strict=True):
        for pieces in zip(*(_pieces(tensor, most) for tensor in tensors), strict=True):
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
