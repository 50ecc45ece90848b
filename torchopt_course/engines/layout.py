"""How elements lie in memory: an elementwise step may take them in any order, if it is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_SPARSE = frozenset(
    {torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
)


def is_sparse(tensor: Tensor) -> bool:
    """Whether only some elements are specified: other layouts (jagged, MKL-DNN) have all of them."""
    return tensor.layout in _SPARSE


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 0:
            return True
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether equal offsets in memory are equal indices: the strides that matter are equal."""
    return strides_agree(a.shape, a.stride(), b.stride())


def strides_agree(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two strides mean the same for tensors of a shape."""
    return 0 in shape or all(size == 1 or s == t for size, s, t in zip(shape, a, b, strict=True))


def in_layout_of(param: Tensor, tensor: Tensor) -> Tensor:
    """A gradient or state in its parameter's memory layout: itself, or else a copy."""
    if is_sparse(tensor):
        # torch's SGD keeps a sparse velocity where the gradients are sparse.
        return tensor.to_dense() if param.layout == torch.strided else tensor
    if param.layout != torch.strided or tensor.layout != torch.strided:
        return tensor
    if same_layout(param, tensor) or not is_dense(param):
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def zeros_where(param: Tensor) -> Tensor:
    """A state for a sparse parameter: zero, with the same elements specified."""
    zeros = param.detach().clone()
    zeros = zeros.coalesce() if zeros.is_sparse else zeros
    zeros.values().zero_()
    return zeros


def sparse_made_dense(wanted: Callable[[], str], param: Tensor, grad: Tensor | None) -> Tensor | None:
    """A sparse gradient made dense where that is wanted."""
    if grad is None or not is_sparse(grad) or is_sparse(param):
        return grad
    # Only coordinates tell which rows a gradient has.
    return grad.to_dense() if wanted() == "dense" or (wanted() == "rows" and not grad.is_sparse) else grad
