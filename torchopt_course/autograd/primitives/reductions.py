"""Many elements become one: the gradient is handed to all of them, each with its weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..dispatch import BadArguments, means
from ..refusals import ask
from ..traced import Value, raw
from .table import LINEAR, primitive

Dims = Any  # None, a number or a tuple


def _dims(dim: Dims, rank: int) -> list[int]:
    """The reduced dimensions as numbers from 0; none named means all."""
    if dim is None or dim == ():
        return list(range(rank))
    return [d % max(rank, 1) for d in ([dim] if isinstance(dim, int) else dim)] if rank else []


def _restore(g: Value, shape: torch.Size, dim: Dims, keepdim: bool) -> Value:
    """Put the reduced dimensions back, with size 1, so that g broadcasts against the argument."""
    if keepdim:
        return g
    reduced = _dims(dim, len(shape))
    return g.reshape([1 if i in reduced else n for i, n in enumerate(shape)])


def _count(shape: torch.Size, dim: Dims) -> int:
    return math.prod(shape[d] for d in _dims(dim, len(shape)))


@primitive(x=lambda g, x_shape, dim, keepdim: _restore(g, x_shape, dim, keepdim).expand(x_shape), jvp=LINEAR)
def sum(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return torch.sum(x, dim, keepdim)


@primitive(
    x=lambda g, x_shape, dim, keepdim: (_restore(g, x_shape, dim, keepdim) / _count(x_shape, dim)).expand(
        x_shape
    ),
    jvp=LINEAR,
)
def mean(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return torch.mean(x, dim, keepdim)


def _var_vjp(g: Value, x: Value, dim: Dims, correction: float, keepdim: bool) -> Value:
    freedom = max(_count(x.shape, dim) - correction, 0)
    slope = (2 / freedom if freedom else math.nan) * (x - mean(x, dim, True))
    return _restore(g, x.shape, dim, keepdim) * slope


@primitive(x=_var_vjp)
def var(x: Tensor, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    return torch.var(x, dim, correction=correction, keepdim=keepdim)


def _over(g: Value, ans: Value) -> Value:
    """g / ans, and 0 where ans is 0, without ever dividing by that: the rule must have a transpose."""
    flat = raw(ans) == 0
    return torch.where(flat, 0.0, g / torch.where(flat, 1.0, ans))


def _std_vjp(g: Value, x: Value, ans: Value, dim: Dims, correction: float, keepdim: bool) -> Value:
    return _var_vjp(0.5 * _over(g, ans), x, dim, correction, keepdim)


@primitive(x=_std_vjp)
def std(x: Tensor, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    return torch.std(x, dim, correction=correction, keepdim=keepdim)


def _logsumexp_vjp(g: Value, x: Value, ans: Value, dim: Dims, keepdim: bool) -> Value:
    shift = _restore(ans, x.shape, dim, keepdim)
    return _restore(g, x.shape, dim, keepdim) * torch.exp(x - shift)


@primitive("logsumexp", x=_logsumexp_vjp)
def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    return torch.logsumexp(x, dim, keepdim)


def _prod_vjp(g: Value, x: Value, ans: Value, dim: int, keepdim: bool) -> Value:
    """The product of all the others: the whole divided by x, unless that is 0 / 0."""
    if not x.shape:
        return g
    if not bool((raw(x) == 0).any()):
        return _restore(g, x.shape, dim, keepdim) * _restore(ans, x.shape, dim, keepdim) / x
    rows = x.movedim(dim, -1).unsqueeze(-2)
    itself = torch.eye(x.shape[dim], dtype=torch.bool, device=raw(x).device)
    others = prod(torch.where(itself, 1.0, rows).to(x.dtype), -1)
    return _restore(g, x.shape, dim, keepdim) * others.movedim(-1, dim)


@primitive(x=_prod_vjp)
def prod(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    return torch.prod(x, dim, keepdim)


def _norm_vjp(g: Value, x: Value, ans: Value, ord: float, dim: Dims, keepdim: bool) -> Value:
    """Its gradient is x |x|ᵖ⁻² / ‖x‖ᵖ⁻¹; zero where the norm is zero (a subgradient, as torch chooses)."""
    g, ans = _restore(g, x.shape, dim, keepdim), _restore(ans, x.shape, dim, keepdim)
    if ord == 0:
        return torch.zeros_like(raw(x))
    if ord == 1:
        return g * torch.sign(x)
    if abs(ord) == math.inf:
        hits = (torch.abs(x) == raw(ans)) | torch.isnan(raw(x))
        share = hits.to(x.dtype) / torch.sum(hits, _dims(dim, len(x.shape)) or None, True)
        return g * torch.sign(x) * share
    if ord == 2:
        return g * _over(x, ans)  # x / ans is at most 1, g / ans may overflow
    steep = torch.sign(x) * torch.where(x == 0, 0.0, torch.abs(x) ** (ord - 1))
    flat = raw(ans) == 0
    return steep * torch.where(flat, 0.0, g / torch.where(flat, 1.0, ans) ** (ord - 1))


@primitive(x=_norm_vjp)
def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x, ord, dim, keepdim)  # type: ignore[no-any-return]


# -- the same as torch calls them ----------------------------------------------------------------------------


def _axis(dim: Any, named: dict[str, Any]) -> Any:
    dim = named.pop("axis", dim)
    if named:
        raise BadArguments(f"unexpected argument {next(iter(named))!r}")
    return tuple(dim) if isinstance(dim, list) else dim


def _cast(x: Value, dtype: torch.dtype | None) -> Value:
    return x if dtype is None else x.to(dtype)


@means("sum", checked=True)
def _sum(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **named: Any) -> Value:
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        ask(Tensor.sum, (x,), {"dtype": dtype})  # raises if x requires a gradient
        return raw(x).sum(_axis(dim, named), keepdim, dtype=dtype)
    return sum(_cast(x, dtype), _axis(dim, named), keepdim)


@means("mean", checked=True)
def _mean(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **named: Any) -> Value:
    return mean(_cast(x, dtype), _axis(dim, named), keepdim)


def _correction(dim: Any, unbiased: Any, correction: float) -> tuple[Any, float]:
    """torch has var(x, unbiased), var(x, dim, unbiased) and var(x, dim, correction=...)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None:
        correction = int(unbiased)
    return dim, 1 if correction is None else correction


def _spread(of: Any) -> Any:
    def spread(
        x: Value, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: float = 1,
        **named: Any,
    ) -> Value:  # fmt: skip
        dim, correction = _correction(_axis(dim, named), unbiased, correction)
        return of(x, dim, correction, keepdim)

    return spread


_var, _std = means("var")(_spread(var)), means("std")(_spread(std))


@stands_for("var_mean")
def _var_mean(
    x: Value, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Value, Value]:
    return var(x, dim, 1 if correction is None else correction, keepdim), mean(x, dim, keepdim)


@stands_for("std_mean")
def _std_mean(
    x: Value, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Value, Value]:
    return std(x, dim, 1 if correction is None else correction, keepdim), mean(x, dim, keepdim)


@means("prod")
def _prod(x: Value, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    x = _cast(x, dtype)
    return prod(x.reshape(-1), 0) if dim is None else prod(x, dim, keepdim)


@means("vector_norm")
def _vector_norm(
    x: Value, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return vector_norm(_cast(x, dtype), ord, _axis(dim, {}), keepdim)


@means("dist")
def _dist(x: Value, other: Value, p: float = 2) -> Value:
    return vector_norm((x - other).reshape(-1), p)
