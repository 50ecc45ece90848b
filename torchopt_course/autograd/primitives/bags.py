"""Sums over groups of rows: bags of embeddings, segments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..dispatch import means
from ..traced import Value, raw
from .table import primitive

aten = torch.ops.aten
SUM, MEAN, MAX = 0, 1, 2


@stands_for("_embedding_bag_forward_only", "_embedding_bag")
@means(torch.embedding_bag)
def _embedding_bag(
    weight: Value, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = SUM,
    sparse: bool = False, per_sample_weights: Value = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Value, Tensor, Tensor, Tensor]:  # fmt: skip
    """Rows are looked up, weighted, and added to the bag that they belong to."""
    if sparse:
        raise NotImplementedError("embedding_bag(sparse=True): gradients here are dense; use sparse=False")
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]
    known = torch.embedding_bag(
        raw(weight), indices, offsets, False, mode, False, raw(per_sample_weights), include_last_offset,
        padding_idx,
    )  # fmt: skip
    if mode == MAX:
        _, _, sizes, largest = known  # in which row each column is the largest
        there = (sizes[: len(largest)] > 0).unsqueeze(-1)  # on a GPU also of the last offset
        return torch.where(
            there, torch.gather(weight, 0, torch.where(there, largest, 0).long()), 0.0
        ), *known[1:]
    count = known[0].shape[0]
    bags = torch.bucketize(torch.arange(len(indices), device=indices.device), offsets[:count], right=True) - 1
    counted = indices != padding
    rows = torch.embedding(weight, indices, padding, scale_grad_by_freq, False)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    rows = torch.where(counted.unsqueeze(-1), rows, 0.0)
    sums = raw(rows).new_zeros(known[0].shape).index_add(0, bags, rows)
    if mode == MEAN:
        sizes = torch.bincount(bags[counted], minlength=count).clamp(min=1)
        sums = sums / sizes.unsqueeze(-1).to(sums.dtype)
    return sums, *known[1:]


def _segments_vjp(
    g: Tensor, data: Tensor, ans: Tensor, reduce: str, where: dict[str, Any], axis: int, initial: Any
) -> Tensor:
    return aten._segment_reduce_backward(g, ans, data, reduce, **where, axis=axis, initial=initial)  # type: ignore[no-any-return]


def _segments_jvp(
    data_dot: Value, data: Tensor, ans: Tensor, reduce: str, where: dict[str, Any], axis: int, unsafe: bool,
    initial: Any,
) -> Value:  # fmt: skip
    """Segments do not depend on each other: the gradient of each, times its own direction."""
    slopes = _segments_vjp(torch.ones_like(ans), data, ans, reduce, where, axis, initial)
    return segment_reduce(slopes * data_dot, "sum", where, axis, unsafe, 0)


@primitive(data=_segments_vjp, jvp=_segments_jvp)
def segment_reduce(
    data: Tensor, reduce: str, where: dict[str, Any], axis: int, unsafe: bool, initial: Any
) -> Tensor:
    """One number for each run of rows. Torch's kernel has the first derivative."""
    return torch.segment_reduce(data, reduce, **where, axis=axis, unsafe=unsafe, initial=initial)


@stands_for("segment_reduce")
def _segment_reduce(
    data: Value, reduce: str, *, lengths: Any = None, indices: Any = None, offsets: Any = None, axis: int = 0,
    unsafe: bool = False, initial: Any = None,
) -> Value:  # fmt: skip
    return segment_reduce(data, reduce, {"lengths": lengths, "offsets": offsets}, axis, unsafe, initial)
