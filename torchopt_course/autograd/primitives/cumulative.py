"""Sums, products and extremes up to each element."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, raw
from .choices import Extreme
from .rules import in_float32
from .table import LINEAR, primitive


def _reversed_sum(g: Value, dim: int) -> Value:
    """The sum from each element to the last."""
    return torch.flip(torch.cumsum(torch.flip(g, (dim,)), dim), (dim,))


@primitive(x=_reversed_sum, jvp=LINEAR)
def cumsum(x: Tensor, dim: int) -> Tensor:
    return torch.cumsum(x, dim)


def _cumprod_vjp(g: Value, x: Value, ans: Value, dim: int) -> Value:
    """Every product from here on, without this factor: divided by it, unless there are zeros."""
    if not x.shape or x.shape[dim] == 1:
        return g
    if not bool((raw(x) == 0).any()):
        return _reversed_sum(g * ans, dim) / x
    rows = x.movedim(dim, -1).unsqueeze(-2)
    itself = torch.eye(x.shape[dim], dtype=torch.bool, device=raw(x).device)
    others = torch.triu(cumprod(torch.where(itself, 1.0, rows).to(x.dtype), -1))
    return (others * g.movedim(dim, -1).unsqueeze(-2)).sum(-1).movedim(-1, dim)


def _cumprod_kernel(g: Tensor, x: Tensor, ans: Tensor, dim: int) -> Tensor:
    """The same in one go, as torch does it: what stands behind the first zero counts only for that, and up to
    the second one."""
    if not x.shape or x.shape[dim] == 1:
        return g
    zero = x == 0
    if not bool(zero.any()):
        return _reversed_sum(g * ans, dim) / x  # type: ignore[no-any-return]
    zeros = zero.cumsum(dim)
    share = _reversed_sum(torch.where(zeros == 0, g * ans, 0.0), dim) / x
    only_one = zeros == 1
    place = only_one.max(dim, True).indices
    first = torch.zeros_like(only_one).scatter_(dim, place, True) & only_one
    before = torch.where(place == 0, 1.0, torch.gather(ans, dim, (place - 1).relu()))
    behind = torch.where(only_one & ~first, x, 1.0).cumprod(dim) * torch.where(only_one, g, 0.0)
    return torch.where(first, behind.sum(dim, True) * before, torch.where(zeros == 0, share, 0.0))


@primitive(x=_cumprod_vjp, fast=_cumprod_kernel)
def cumprod(x: Tensor, dim: int) -> Tensor:
    return torch.cumprod(x, dim)


def _logcumsumexp_vjp(g: Value, x: Value, ans: Value, dim: int) -> Value:
    """exp(x) Σ g exp(-ans) from here on, in logarithms: of the positive and of the negative g."""

    if not x.shape:
        return g
    ans = torch.where(raw(ans) == -math.inf, 0.0, ans)  # where nothing is there yet, -inf - -inf is no number

    def part(sign: int) -> Value:
        there = sign * g > 0
        size = torch.where(there, torch.log(torch.where(there, sign * g, 1.0)) - ans, -math.inf)
        return torch.exp(torch.flip(logcumsumexp(torch.flip(size, (dim,)), dim), (dim,)) + x)

    return part(1) - part(-1)


@in_float32  # a logarithm in half precision would not give ẋ back
def _logcumsumexp_jvp(x_dot: Value, x: Value, ans: Value, dim: int) -> Value:
    """Σ ẋ exp(x) so far over Σ exp(x), in the same way."""
    ans = torch.where(raw(ans) == -math.inf, 0.0, ans)

    def part(sign: int) -> Value:
        there = sign * x_dot > 0
        size = torch.where(there, torch.log(torch.where(there, sign * x_dot, 1.0)) + x, -math.inf)
        return torch.exp(logcumsumexp(size, dim) - ans)

    return part(1) - part(-1)


@primitive(x=_logcumsumexp_vjp, jvp=_logcumsumexp_jvp)
def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """ln Σ exp, of all elements so far."""
    return torch.logcumsumexp(x, dim)


# -- the same as torch calls them ----------------------------------------------------------------------------


def _cast(x: Value, dtype: torch.dtype | None) -> Value:
    return x if dtype is None else x.to(dtype)


@means("cumsum")
def _cumsum(x: Value, dim: int, *, dtype: Any = None) -> Value:
    return cumsum(_cast(x, dtype), dim)


@means("cumprod")
def _cumprod(x: Value, dim: int, *, dtype: Any = None) -> Value:
    return cumprod(_cast(x, dtype), dim)


@means("logcumsumexp")
def _logcumsumexp(x: Value, dim: int) -> Value:
    return logcumsumexp(x, dim)


def _extreme_so_far(name: str) -> None:
    function = getattr(torch, name)

    @means(name)
    def extreme(x: Value, dim: int) -> Any:
        """The indices are constants; the values are gathered with them."""
        indices = function(raw(x), dim).indices
        return Extreme(torch.gather(x, dim, indices), indices)


_extreme_so_far("cummax")
_extreme_so_far("cummin")
