"""Elements chosen by their size: the largest, the smallest, the middle one, in order.

Which ones they are is a constant, found by torch's kernel; the values are then taken by position. Where a
function gives values without positions, all that are equal share the gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Value, is_tensor, raw
from .reductions import Dims, _restore
from .steps import maximum, minimum
from .table import primitive


def _shared(g: Value, x: Value, ans: Value, dim: Dims, keepdim: bool) -> Value:
    """Evenly among all elements that are equal to the result. None is equal to NaN: NaN for all of them."""
    hits = raw(x) == raw(_restore(ans, x.shape, dim, keepdim))
    return _restore(g, x.shape, dim, keepdim) * hits / torch.sum(hits, dim if dim != () else None, True)


def _shared_by_all(g: Value, x: Value, ans: Value) -> Value:
    """The same for the extreme of the whole tensor: there torch shares NaN's gradient among all NaN."""
    hits = torch.isnan(raw(x)) if bool(torch.isnan(raw(ans))) else raw(x) == raw(ans)
    return torch.where(hits, g / hits.sum(), 0.0)


@primitive("amax", x=_shared)
def amax(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    return torch.amax(x, dim, keepdim)


@primitive("amin", x=_shared)
def amin(x: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    return torch.amin(x, dim, keepdim)


@primitive(x=_shared_by_all)
def largest(x: Tensor) -> Tensor:
    return torch.max(x)


@primitive(x=_shared_by_all)
def smallest(x: Tensor) -> Tensor:
    return torch.min(x)


@primitive(x=_shared_by_all)
def median(x: Tensor, ignore_nan: bool) -> Tensor:
    return torch.nanmedian(x) if ignore_nan else torch.median(x)


# -- the same as torch calls them ----------------------------------------------------------------------------


class Extreme(NamedTuple):
    """What ``x.max(dim)`` gives."""

    values: Value
    indices: Tensor


def _taken(x: Value, dim: int, indices: Tensor, keepdim: bool) -> Extreme:
    values = torch.gather(x, dim, indices)
    if keepdim or not x.shape:
        return Extreme(values, indices)
    return Extreme(values.squeeze(dim), indices.squeeze(dim))


def _along(function: Any, x: Value, dim: int, keepdim: bool) -> Extreme:
    return _taken(x, dim, function(raw(x), dim, True).indices, keepdim)


@means("max")
def _max(x: Value, *args: Any, **named: Any) -> Any:
    return _extreme(x, args, named, torch.max, largest, maximum)


@means("min")
def _min(x: Value, *args: Any, **named: Any) -> Any:
    return _extreme(x, args, named, torch.min, smallest, minimum)


def _extreme(x: Value, args: Any, named: Any, along: Any, of_all: Any, of_two: Any) -> Any:
    if not args and not named:
        return of_all(x)
    given = [*args, *[named[name] for name in ("dim", "axis", "other") if name in named]]
    if is_tensor(given[0]):
        return of_two(x, given[0])
    return _along(along, x, given[0], named.get("keepdim", given[1] if len(given) > 1 else False))


def _middle(name: str) -> None:
    function = getattr(torch, name)

    @means(name)
    def middle(x: Value, dim: int | None = None, keepdim: bool = False) -> Any:
        return median(x, name == "nanmedian") if dim is None else _along(function, x, dim, keepdim)


_middle("median")
_middle("nanmedian")


@means("mode")
def _mode(x: Value, dim: int = -1, keepdim: bool = False) -> Extreme:
    return _along(torch.mode, x, dim, keepdim)


@means("kthvalue")
def _kthvalue(x: Value, k: int, dim: int = -1, keepdim: bool = False) -> Extreme:
    return _taken(x, dim, torch.kthvalue(raw(x), k, dim, True).indices, keepdim)


@means("sort")
def _sort(x: Value, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> Extreme:
    indices = torch.sort(raw(x), dim=dim, descending=descending, stable=bool(stable)).indices
    return Extreme(torch.gather(x, dim, indices), indices)


@means("topk")
def _topk(x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    indices = torch.topk(raw(x), k, dim, largest, sorted).indices
    return Extreme(torch.gather(x, dim, indices), indices)


def _quantiles(name: str) -> None:
    ignore_nan = name.startswith("nan")

    @means(name)
    def quantile(
        x: Value, q: Value, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Value:
        """Between the two elements in order whose places are next to q (n - 1)."""
        if not is_tensor(q):
            q = torch.tensor(q, dtype=x.dtype, device=raw(x).device)
        if not bool(((raw(q) >= 0) & (raw(q) <= 1)).all()):
            raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
        rows = x.reshape(-1) if dim is None else x.reshape(1) if not x.shape else x.movedim(dim, -1)
        ordered = _sort(rows).values
        number = torch.isnan(raw(rows)).logical_not().sum(-1, keepdim=True)
        last = (number if ignore_nan else torch.full_like(number, rows.shape[-1])) - 1
        place = q.reshape(-1) * last
        if not ignore_nan:  # NaN stands behind all numbers
            place = torch.where(number < rows.shape[-1], last.to(raw(q).dtype), place)
        place = torch.where(raw(place) < 0, 0.0, place)
        low = raw(place).floor().long()
        if interpolation == "higher":
            low = raw(place).ceil().long()
        elif interpolation == "nearest":
            low = raw(place).round().long()
        weight = place - low if interpolation == "linear" else 0.5
        high = raw(place).ceil().long()
        result = torch.gather(ordered, -1, low)
        if interpolation in ("linear", "midpoint"):
            result = torch.lerp(result, torch.gather(ordered, -1, high), weight)
        result = result.movedim(-1, 0)  # first the q, then what is left of x
        if keepdim and x.shape:
            result = (
                result.unsqueeze((dim or 0) % max(len(x.shape), 1) + 1)
                if dim is not None
                else (result.reshape(-1, *[1] * len(x.shape)))
            )
        return result if q.shape else result.squeeze(0)


for _name in ("quantile", "nanquantile"):
    _quantiles(_name)
