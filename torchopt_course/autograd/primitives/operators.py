"""Operators of ATen, which are what torch's own composite functions are made of, by what they mean here.

Most have the name of a torch function and are found by it. These have another name or other arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ..decompose import refuse, stands_for
from ..dispatch import call
from ..traced import Value, raw
from . import choices, indexing, losses, normalization, pooling, shapes
from .conversion import _to
from .rules import widened
from .writing import view_by_strides

aten = torch.ops.aten

# What gives complex numbers, which variables are not; torch would take some of it apart all the same.
refuse(
    "complex", "polar", "view_as_complex", "view_as_real", "_fft_r2c", "_fft_c2c", "_fft_c2r", "linalg_eig"
)


@stands_for(aten.slice.Tensor)
def _slice(x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    return indexing.getitem(x, (*indexing._before(x, dim), slice(start, end, step)))


@stands_for("index", "_unsafe_index")
def _index(x: Value, indices: Sequence[Any]) -> Value:
    return indexing._getitem(x, tuple(slice(None) if index is None else index for index in indices))


@stands_for("_unsafe_view", "_reshape_alias")
def _view(x: Value, size: Sequence[int], stride: Any = None) -> Value:
    return shapes.reshape(x, tuple(size))


@stands_for("view_copy")
def _view_copy(x: Value, size: Sequence[int]) -> Value:
    return shapes.reshape(x, tuple(size)).clone()


@stands_for("_to_copy")
def _to_copy(
    x: Value, *, dtype: Any = None, device: Any = None, memory_format: Any = None, **_: Any
) -> Value:
    return _to(x, device or raw(x).device, dtype or x.dtype, copy=True, memory_format=memory_format)


@stands_for("copy")
def _copy(x: Value, source: Value, non_blocking: bool = False) -> Value:
    return shapes.expand(_to(source, x.dtype), x.shape)


@stands_for("sort")
def _sort(x: Value, *how: Any, **named: Any) -> Any:
    """``(dim, descending)``, or with stable in front of these."""
    if "stable" in named:
        return choices._sort(x, *how, **named)
    return choices._sort(x, *how)


@stands_for("_local_scalar_dense")
def _item(x: Value) -> Any:
    return raw(x).item()


@stands_for("lift_fresh", "alias", "_lazy_clone")
def _alias(x: Value) -> Value:
    return x


@stands_for("_softmax")
def _softmax(x: Value, dim: int, half_to_float: Any = False) -> Value:
    return normalization.softmax(x, dim)


@stands_for("_log_softmax")
def _log_softmax(x: Value, dim: int, half_to_float: bool) -> Value:
    return normalization.log_softmax(x, dim)


@stands_for("native_layer_norm")
def _layer_norm(x: Value, shape: Any, weight: Value, bias: Value, eps: float) -> tuple[Value, Any, Any]:
    plain = aten.native_layer_norm(raw(x), shape, raw(weight), raw(bias), eps)
    return normalization.layer_norm(x, weight, bias, tuple(shape), eps), *plain[1:]


@stands_for("native_group_norm")
def _group_norm(
    x: Value, weight: Value, bias: Value, n: int, channels: int, places: int, groups: int, eps: float
) -> tuple[Value, Any, Any]:
    rows = widened(x.reshape(n, groups, channels // groups * places))
    scale = torch.rsqrt(rows.var(-1, correction=0) + eps)
    result = call(torch.nn.functional.group_norm, x, groups, weight, bias, eps)
    return result, rows.mean(-1).to(x.dtype), scale.to(x.dtype)


@stands_for("native_batch_norm", "_native_batch_norm_legit")
def _batch_norm(x: Value, weight: Value, bias: Value, *how: Any) -> tuple[Value, Any, Any]:
    """With running statistics or without: (mean, variance, training, momentum, eps) or the last three."""
    *running, training, momentum, eps = how
    mean, var = (raw(each) for each in running or (None, None))
    copies = [None if each is None else each.clone() for each in (mean, var)]
    plain = aten.native_batch_norm(raw(x), raw(weight), raw(bias), *copies, training, momentum, eps)
    return normalization.batch_norm(x, weight, bias, mean, var, training, momentum, eps), *plain[1:]


@stands_for("_batch_norm_with_update")
def _batch_norm_with_update(
    x: Value, weight: Value, bias: Value, mean: Any, var: Any, momentum: float, eps: float
) -> tuple[Value, Any, Any, Any]:
    mean, var = raw(mean), raw(var)
    copies = mean.clone(), var.clone()
    plain = aten._batch_norm_with_update(raw(x), raw(weight), raw(bias), *copies, momentum, eps)
    return normalization.batch_norm(x, weight, bias, mean, var, True, momentum, eps), *plain[1:]


@stands_for("convert_element_type")
def _convert(x: Value, dtype: torch.dtype) -> Value:
    return _to(x, dtype)


@stands_for("as_strided", "as_strided_copy")
def _as_strided(
    x: Value, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Value:
    """Elements by their distances in memory."""
    offset = 0 if storage_offset is None else storage_offset - raw(x).storage_offset()
    return view_by_strides(x, size, stride, offset)


@stands_for("frexp")
def _frexp(x: Value) -> tuple[Value, Value]:
    exponent = torch.frexp(raw(x)).exponent
    half = exponent // 2  # in two steps, since 2 to the whole may be infinite
    return torch.ldexp(torch.ldexp(x, -half), half - exponent), exponent


@stands_for("_trilinear")
def _trilinear(
    a: Value,
    b: Value,
    c: Value,
    expand_a: Any,
    expand_b: Any,
    expand_c: Any,
    sum_dims: Any,
    unroll_dim: int = 1,
) -> Value:
    """The product of three tensors, with new dimensions put in and some summed up."""
    product: Value = 1
    for factor, dims in ((a, expand_a), (b, expand_b), (c, expand_c)):
        for dim in dims:
            factor = factor.unsqueeze(dim)
        product = factor * product
    return product.sum(list(sum_dims)) if sum_dims else product


def _reduction(number: int) -> str:
    """ATen counts the ways to reduce a loss."""
    return next(name for name, code in losses.REDUCTIONS.items() if code == number)


@stands_for("nll_loss_forward", "nll_loss2d_forward")
def _nll_loss(x: Value, target: Any, weight: Any, reduction: int, ignore_index: int) -> tuple[Value, Value]:
    return losses.nll_loss(x, target, weight, _reduction(reduction), ignore_index), raw(x).new_zeros(())


@stands_for("mse_loss")
def _mse_loss(x: Value, target: Value, reduction: int = 1) -> Value:
    return functional.mse_loss(x, target, reduction=_reduction(reduction))


@stands_for("smooth_l1_loss")
def _smooth_l1_loss(x: Value, target: Value, reduction: int = 1, beta: float = 1.0) -> Value:
    return functional.smooth_l1_loss(x, target, reduction=_reduction(reduction), beta=beta)


@stands_for("huber_loss")
def _huber_loss(x: Value, target: Value, reduction: int = 1, delta: float = 1.0) -> Value:
    return functional.huber_loss(x, target, reduction=_reduction(reduction), delta=delta)


@stands_for("binary_cross_entropy")
def _binary_cross_entropy(x: Value, target: Value, weight: Value = None, reduction: int = 1) -> Value:
    return functional.binary_cross_entropy(x, target, weight, reduction=_reduction(reduction))


@stands_for("binary_cross_entropy_with_logits")
def _cross_entropy_of_logits(
    x: Value, target: Value, weight: Value = None, pos_weight: Value = None, reduction: int = 1
) -> Value:
    how = _reduction(reduction)
    return functional.binary_cross_entropy_with_logits(
        x, target, weight, reduction=how, pos_weight=pos_weight
    )


@stands_for("max_pool2d_with_indices")
def _max_pool2d(x: Value, *how: Any) -> Any:
    return pooling._max_pool2d(x, *how, return_indices=True)


@stands_for("norm")
def _norm(x: Value, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    return call(torch.linalg.vector_norm, x, 2 if p is None else p, dim, keepdim, dtype=dtype)
