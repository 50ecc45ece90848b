"""Softmax and the normalizations: shift and scale, by what the values themselves say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, raw
from .rules import HALF, in_float32, widened
from .table import primitive

aten = torch.ops.aten


@primitive(
    x=lambda g, ans, dim: ans * (g - (g * ans).sum(dim, keepdim=True)),
    fast=lambda g, ans, dim: torch._softmax_backward_data(g, ans, dim, ans.dtype),
    jvp=lambda x_dot, ans, dim: ans * (x_dot - (x_dot * ans).sum(dim, keepdim=True)),
)
def softmax(x: Tensor, dim: int) -> Tensor:
    return torch.softmax(x, dim)


@primitive(
    x=lambda g, ans, dim: g - torch.exp(ans) * g.sum(dim, keepdim=True),
    fast=lambda g, ans, dim: torch._log_softmax_backward_data(g, ans, dim, ans.dtype),
    jvp=lambda x_dot, ans, dim: x_dot - (torch.exp(ans) * x_dot).sum(dim, keepdim=True),
)
def log_softmax(x: Tensor, dim: int) -> Tensor:
    return torch.log_softmax(x, dim)


def _standardized_vjp(g: Value, x: Value, over: Sequence[int], eps: float) -> Value:
    """x̂ = (x - μ) / σ: the gradient is g without its mean and without its part along x̂, divided by σ."""
    inv = torch.rsqrt(x.var(over, correction=0, keepdim=True) + eps)
    x_hat = (x - x.mean(over, keepdim=True)) * inv
    return inv * (g - g.mean(over, keepdim=True) - x_hat * (g * x_hat).mean(over, keepdim=True))


def _shift_and_scale_vjp(
    g: Value, wanted: Sequence[bool], x: Value, weight: Value, bias: Value, over: Sequence[int],
    mean: Value, inv: Value, eps: float, moving: bool, params: Sequence[int],
) -> list[Value]:  # fmt: skip
    """ŷ = x̂ w + b, for a mean and 1/σ that are x's own (`moving`) or constants."""
    rest = [d for d in range(len(x.shape)) if d not in params]
    x_hat = (x - mean) * inv
    g_hat = g if weight is None else g * weight
    g_x = None
    if wanted[0]:
        g_x = _standardized_vjp(g_hat, x, over, eps) if moving else g_hat * inv
    return [
        g_x,
        _sum_over(g * x_hat, rest) if wanted[1] else None,
        _sum_over(g, rest) if wanted[2] else None,
    ]


def _sum_over(x: Value, dims: Sequence[int]) -> Value:
    return x.sum(dims, keepdim=True) if dims else x  # for torch no dimensions are all


def _own_statistics(x: Value, over: Sequence[int], eps: float) -> tuple[Value, Value]:
    inv = torch.rsqrt(x.var(over, correction=0, keepdim=True) + eps)
    return x.mean(over, keepdim=True), inv


def _channels(x: Value) -> tuple[int, ...]:
    """The shape that lets one number a channel broadcast against (N, C, ...)."""
    return (1, -1, *[1] * (len(x.shape) - 2))


@in_float32
def _batch_norm_vjp(
    g: Value, wanted: Sequence[bool], x: Value, weight: Value, bias: Value, running_mean: Value,
    running_var: Value, training: bool, eps: float,
) -> list[Value]:  # fmt: skip
    over = [0, *range(2, len(x.shape))]
    shape = _channels(x)
    if training:
        mean, inv = _own_statistics(x, over, eps)
    else:
        mean, inv = running_mean.reshape(shape), torch.rsqrt(running_var.reshape(shape) + eps)
    weight_ = None if weight is None else weight.reshape(shape)
    g_x, g_w, g_b = _shift_and_scale_vjp(g, wanted, x, weight_, bias, over, mean, inv, eps, training, [1])
    return [
        g_x,
        None if g_w is None else g_w.reshape(-1),
        None if g_b is None else g_b.reshape(-1),
        *[None] * 5,
    ]


def _batch_norm_kernel(
    g: Tensor, wanted: Sequence[bool], x: Tensor, weight: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, eps: float, mean: Tensor, inv: Tensor,
) -> list[Tensor | None]:  # fmt: skip
    # Torch's kernel reads a weight with gaps in memory wrongly (2.14.1), in torch.autograd as well.
    weight = None if weight is None else weight.contiguous()
    grads = aten.native_batch_norm_backward(
        g, x, weight, running_mean, running_var, mean, inv, training, eps, list(wanted[:3])
    )
    return [*[grad if wish else None for grad, wish in zip(grads, wanted, strict=False)], *[None] * 5]


@in_float32
def _batch_norm_jvp(
    x: Value, weight: Value, bias: Value, running_mean: Value, running_var: Value, training: bool, eps: float,
    x_dot: Value, weight_dot: Value, bias_dot: Value,
) -> Value:  # fmt: skip
    over, shape = [0, *range(2, len(x.shape))], _channels(x)
    if training:
        mean, inv = _own_statistics(x, over, eps)
        change = _standardized_vjp(x_dot, x, over, eps)  # its Jacobian is symmetric
    else:
        mean, inv = running_mean.reshape(shape), torch.rsqrt(running_var.reshape(shape) + eps)
        change = x_dot * inv
    return _affine_jvp(change, (x - mean) * inv, weight, bias, weight_dot, bias_dot, shape)


def _affine_jvp(
    change: Value, x_hat: Value, weight: Value, bias: Value, weight_dot: Value, bias_dot: Value, shape: Any
) -> Value:
    if weight is not None:
        change = change * weight.reshape(shape) + x_hat * weight_dot.reshape(shape)
    return change if bias is None else change + bias_dot.reshape(shape)


@primitive(vjp=_batch_norm_vjp, fast=_batch_norm_kernel, jvp=_batch_norm_jvp, aux=("mean", "inv"))
def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
    """Standardized over batch and space by its own statistics (training) or the running ones."""
    result, mean, inv = torch.native_batch_norm(
        x, weight, bias, running_mean, running_var, training, momentum, eps
    )
    return result, (mean, inv)


@in_float32
def _layer_norm_vjp(
    g: Value, wanted: Sequence[bool], x: Value, weight: Value, bias: Value, shape: Sequence[int], eps: float
) -> list[Value]:
    over = list(range(len(x.shape) - len(shape), len(x.shape)))
    mean, inv = _own_statistics(x, over, eps)
    g_x, g_w, g_b = _shift_and_scale_vjp(g, wanted, x, weight, bias, over, mean, inv, eps, True, over)
    return [
        g_x,
        None if g_w is None else g_w.reshape(tuple(shape)),
        None if g_b is None else g_b.reshape(tuple(shape)),
        None,
        None,
    ]


def _layer_norm_kernel(
    g: Tensor, wanted: Sequence[bool], x: Tensor, weight: Tensor | None, bias: Tensor | None,
    shape: Sequence[int], mean: Tensor, inv: Tensor,
) -> list[Tensor | None]:  # fmt: skip
    grads = aten.native_layer_norm_backward(g, x, list(shape), mean, inv, weight, bias, list(wanted[:3]))
    return [*[grad if wish else None for grad, wish in zip(grads, wanted, strict=False)], None, None]


@in_float32
def _layer_norm_jvp(
    x: Value, weight: Value, bias: Value, shape: Sequence[int], eps: float, x_dot: Value, weight_dot: Value,
    bias_dot: Value,
) -> Value:  # fmt: skip
    over = list(range(len(x.shape) - len(shape), len(x.shape)))
    mean, inv = _own_statistics(x, over, eps)
    change = _standardized_vjp(x_dot, x, over, eps)
    return _affine_jvp(change, (x - mean) * inv, weight, bias, weight_dot, bias_dot, tuple(shape))


@primitive(vjp=_layer_norm_vjp, fast=_layer_norm_kernel, jvp=_layer_norm_jvp, aux=("mean", "inv"))
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int], eps: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Each example standardized over its last dimensions."""
    result, mean, inv = torch.native_layer_norm(x, list(shape), weight, bias, eps)
    return result, (mean, inv)


# -- the same as torch calls them ----------------------------------------------------------------------------


def _dim_of(input: Value, dim: int | None) -> int:
    # torch's own choice where none is named, with a warning that it will go.
    return dim if dim is not None else (0 if len(input.shape) in (0, 1, 3) else 1)


@means("softmax", checked=True)
def _softmax(input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    return softmax(input if dtype is None else input.to(dtype), _dim_of(input, dim))


@means("log_softmax", checked=True)
def _log_softmax(input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    return log_softmax(input if dtype is None else input.to(dtype), _dim_of(input, dim))


@means(torch.nn.functional.softmin)
def _softmin(input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    return _softmax(-input, dim, dtype=dtype)


@means(torch.batch_norm)
def _batch_norm_builtin(
    input: Value, weight: Value, bias: Value, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Value:  # fmt: skip
    if not math.prod(input.shape):  # torch's kernel divides by zero; the result is as empty as the input
        result = input if weight is None else input * weight[0]
        return result if bias is None else result + bias[0]
    return batch_norm(input, weight, bias, raw(running_mean), raw(running_var), training, momentum, eps)


@means(torch.nn.functional.batch_norm)
def _batch_norm(
    input: Value, running_mean: Tensor | None, running_var: Tensor | None, weight: Value = None,
    bias: Value = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Value:  # fmt: skip
    if training and input.shape[0] * math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    return _batch_norm_builtin(input, weight, bias, running_mean, running_var, training, momentum, eps)


@means("layer_norm")
def _layer_norm(
    input: Value, normalized_shape: Sequence[int], weight: Value = None, bias: Value = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Value:  # fmt: skip
    return layer_norm(input, weight, bias, tuple(normalized_shape), eps)


@means("group_norm")
def _group_norm(
    input: Value, num_groups: int, weight: Value = None, bias: Value = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:  # fmt: skip
    """The channels of a group are standardized like one layer."""
    if input.dtype in HALF:  # rounded once, and under autocast the weights are float32
        wide = _group_norm(input.float(), num_groups, widened(weight), widened(bias), eps)
        return wide.to(input.dtype)
    each = math.prod(input.shape[1:]) // num_groups
    groups = input.reshape(input.shape[0], num_groups, each)
    result = layer_norm(groups, None, None, groups.shape[2:], eps).reshape(input.shape)
    result = result if weight is None else result * weight.reshape(_channels(input))
    return result if bias is None else result + bias.reshape(_channels(input))


@means("_weight_norm")
def _weight_norm(v: Value, g: Value, dim: int = 0) -> Value:
    """Direction and length apart: v g / ‖v‖, the norm over all dimensions but one, or (-1) over all."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


@means("rms_norm")
def _rms_norm(
    input: Value, normalized_shape: Sequence[int], weight: Value = None, eps: float | None = None
) -> Value:
    over = list(range(-len(normalized_shape), 0))
    wide = widened(input)
    eps = torch.finfo(wide.dtype).eps if eps is None else eps
    result = wide * torch.rsqrt((wide * wide).mean(over, keepdim=True) + eps)
    return (result if weight is None else result * weight).to(input.dtype)
