"""Many elements become one: the gradient is handed to all of them, each with its weight."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, is_tensor, raw
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
    return (
        _restore(g, x.shape, dim, keepdim) * (2 / freedom if freedom else math.nan) * (x - mean(x, dim, True))
    )


@primitive(x=_var_vjp)
def var(x: Tensor, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    return torch.var(x, dim, correction=correction, keepdim=keepdim)


def _std_vjp(g: Value, x: Value, ans: Value, dim: Dims, correction: float, keepdim: bool) -> Value:
    return _var_vjp(torch.where(ans == 0, 0.0, g / (2 * ans)), x, dim, correction, keepdim)


@primitive(x=_std_vjp)
def std(x: Tensor, dim: Dims = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    return torch.std(x, dim, correction=correction, keepdim=keepdim)


def _extreme_vjp(g: Value, x: Value, ans: Value, dim: Dims, keepdim: bool) -> Value:
    """Shared evenly among all elements that are the largest."""
    hits = x == raw(_restore(ans, x.shape, dim, keepdim))
    share = hits / torch.sum(hits, dim if dim != () else None, True).to(x.dtype)
    return _restore(g, x.shape, dim, keepdim) * share.to(x.dtype)


@primitive("amax", x=_extreme_vjp)
def amax(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    return torch.amax(x, dim, keepdim)


@primitive("amin", x=_extreme_vjp)
def amin(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    return torch.amin(x, dim, keepdim)


def _logsumexp_vjp(g: Value, x: Value, ans: Value, dim: Dims, keepdim: bool) -> Value:
    shift = _restore(ans, x.shape, dim, keepdim)
    # Where all of x is -inf there is no slope; -inf - -inf must not make it NaN.
    shift = torch.where(torch.isinf(raw(shift)), 0.0, shift)
    return _restore(g, x.shape, dim, keepdim) * torch.exp(x - shift)


@primitive("logsumexp", x=_logsumexp_vjp)
def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    return torch.logsumexp(x, dim, keepdim)


@primitive(x=lambda g, dim: torch.flip(torch.cumsum(torch.flip(g, (dim,)), dim), (dim,)), jvp=LINEAR)
def cumsum(x: Tensor, dim: int) -> Tensor:
    return torch.cumsum(x, dim)


def _prod_vjp(g: Value, x: Value, ans: Value, dim: int, keepdim: bool) -> Value:
    """The product of all the others: the whole divided by x, unless that is 0 / 0."""
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
        hits = torch.abs(x) == raw(ans)
        share = (hits / torch.sum(hits, _dims(dim, len(x.shape)) or None, True)).to(x.dtype)
        return g * torch.sign(x) * share
    if ord == 2:
        return x * torch.where(ans == 0, 0.0, g / ans)
    steep = torch.sign(x) * torch.where(x == 0, 0.0, torch.abs(x) ** (ord - 1))
    return steep * torch.where(ans == 0, 0.0, g / ans ** (ord - 1))


@primitive(x=_norm_vjp)
def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x, ord, dim, keepdim)  # type: ignore[no-any-return]


# -- the same as torch calls them ----------------------------------------------------------------------------


def _axis(dim: Any, named: dict[str, Any]) -> Any:
    dim = named.pop("axis", dim)
    if named:
        raise TypeError(f"unexpected argument {next(iter(named))!r}")
    return tuple(dim) if isinstance(dim, list) else dim


def _cast(x: Value, dtype: torch.dtype | None) -> Value:
    return x if dtype is None else x.to(dtype)


@means("sum")
def _sum(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **named: Any) -> Value:
    return sum(_cast(x, dtype), _axis(dim, named), keepdim)


@means("mean")
def _mean(x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **named: Any) -> Value:
    return mean(_cast(x, dtype), _axis(dim, named), keepdim)


def _correction(dim: Any, unbiased: Any, correction: float) -> tuple[Any, float]:
    """torch has var(x, unbiased), var(x, dim, unbiased) and var(x, dim, correction=...)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return dim, correction if unbiased is None else int(unbiased)


def _spread(of: Any) -> Any:
    def spread(
        x: Value, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: float = 1,
        **named: Any,
    ) -> Value:  # fmt: skip
        dim, correction = _correction(_axis(dim, named), unbiased, correction)
        return of(x, dim, correction, keepdim)

    return spread


_var, _std = means("var")(_spread(var)), means("std")(_spread(std))


@means("var_mean")
def _var_mean(x: Value, dim: Any = None, **how: Any) -> tuple[Value, Value]:
    return _var(x, dim, **how), _mean(x, dim, how.get("keepdim", False))


@means("std_mean")
def _std_mean(x: Value, dim: Any = None, **how: Any) -> tuple[Value, Value]:
    return _std(x, dim, **how), _mean(x, dim, how.get("keepdim", False))


class Extreme(NamedTuple):
    """What ``x.max(dim)`` gives."""

    values: Value
    indices: Tensor


def _along(function: Any, x: Value, dim: int, keepdim: bool, *args: Any) -> Extreme:
    """The indices are constants; the values are gathered with them."""
    indices = function(raw(x), *args, dim, True).indices if x.shape else function(raw(x), *args, dim).indices
    values = torch.gather(x, dim, indices)
    return (
        Extreme(values, indices)
        if keepdim or not x.shape
        else Extreme(values.squeeze(dim), indices.squeeze(dim))
    )


@means("max")
def _max(x: Value, *args: Any, **named: Any) -> Any:
    return _extreme(x, args, named, torch.max, amax, torch.maximum)


@means("min")
def _min(x: Value, *args: Any, **named: Any) -> Any:
    return _extreme(x, args, named, torch.min, amin, torch.minimum)


def _extreme(x: Value, args: Any, named: Any, along: Any, of_all: Any, of_two: Any) -> Any:
    if not args and not named:
        return of_all(x)
    other = named.get("other", args[0] if args else None)
    if is_tensor(other):
        return of_two(x, other)
    dim = _axis(args[0] if args else named.pop("dim", None), {k: v for k, v in named.items() if k == "axis"})
    return _along(along, x, dim, named.get("keepdim", args[1] if len(args) > 1 else False))


@means("median")
def _median(x: Value, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        return _along(torch.median, x.reshape(-1), 0, False).values
    return _along(torch.median, x, dim, keepdim)


@means("sort")
def _sort(x: Value, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Extreme:
    indices = torch.sort(raw(x), dim=dim, descending=descending, stable=stable).indices
    return Extreme(torch.gather(x, dim, indices), indices)


@means("topk")
def _topk(x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    indices = torch.topk(raw(x), k, dim, largest, sorted).indices
    return Extreme(torch.gather(x, dim, indices), indices)


@means("prod")
def _prod(x: Value, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    x = _cast(x, dtype)
    return prod(x.reshape(-1), 0) if dim is None else prod(x, dim, keepdim)


@means("cumsum")
def _cumsum(x: Value, dim: int, *, dtype: Any = None) -> Value:
    return cumsum(_cast(x, dtype), dim)


@means("vector_norm")
def _vector_norm(
    x: Value, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return vector_norm(_cast(x, dtype), ord, _axis(dim, {}), keepdim)


@means(torch.norm, Tensor.norm, torch.linalg.norm)
def _norm(
    x: Value, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None, **named: Any
) -> Value:
    p = named.get("ord", p)
    dims = _axis(dim, {})
    rank = len(x.shape) if dims is None else 1 if isinstance(dims, int) else len(dims)
    if p not in ("fro", None) and (isinstance(p, str) or (rank == 2 and "ord" in named and dims is not None)):
        raise NotImplementedError(
            f"norm: no derivative for the matrix norm {p!r}; vector norms and 'fro' have one"
        )
    return vector_norm(_cast(x, dtype), 2 if p in ("fro", None) else p, dims, keepdim)


@means("dist")
def _dist(x: Value, other: Value, p: float = 2) -> Value:
    return vector_norm((x - other).reshape(-1), p)
