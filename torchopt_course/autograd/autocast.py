"""``torch.autocast``: a function computes in another dtype; the casts before it are recorded like any other.

Torch does not tell which functions it computes in the lower dtype, which in float32, and which as they are.
So each is tried once, for each combination of dtypes, with autocast and without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .dispatch import DIFFERENTIABLE
from .refusals import held, same_random_numbers

# For a function with arguments of these dtypes on this kind of device: the dtype to cast them to, if any.
_known: dict[tuple[Any, ...], torch.dtype | None] = {}

is_on = torch._C._is_any_autocast_enabled
off = torch._C._DisableAutocast


def apply(
    meaning: Callable[..., Any], function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Call ``meaning`` in the dtype in which torch would compute ``function`` under autocast."""
    flat, structure = pytree.tree_flatten((tuple(args), kwargs))
    tensors = [value.detach() for value in flat if isinstance(value, Tensor)]
    device = next((x.device.type for x in tensors if not x.is_cpu), "cpu")
    target = None
    if torch.is_autocast_enabled(device) and function not in DIFFERENTIABLE:
        kinds = [value.dtype if isinstance(value, Tensor) else value for value in flat if _has_dtype(value)]
        key = (function, device, torch.get_autocast_dtype(device), *kinds)
        if key not in _known:
            _known[key] = _tried(function, flat, structure, device)
        target = _known[key]
    with off():
        if target is not None:
            flat = [_cast(value, target, device) for value in flat]
        args, kwargs = pytree.tree_unflatten(flat, structure)
        return meaning(*args, **kwargs)


def _has_dtype(value: Any) -> bool:
    return isinstance(value, Tensor | torch.dtype)


def _tried(function: Callable[..., Any], flat: list[Any], structure: Any, device: str) -> torch.dtype | None:
    """The dtype of the result under autocast, if the result would be another one without."""

    def result(enabled: bool) -> Tensor | None:
        with torch.no_grad(), torch.autocast(device, enabled=enabled, cache_enabled=False):
            copies = [value.detach().clone() if isinstance(value, Tensor) else value for value in flat]
            args, kwargs = pytree.tree_unflatten(copies, structure)
            results = pytree.tree_leaves(function(*args, **kwargs))
        return next((y for y in results if isinstance(y, Tensor) and y.is_floating_point()), None)

    with same_random_numbers(value for value in flat if isinstance(value, Tensor)):
        chosen = result(True)
        if chosen is None:
            return None
        try:
            plain = result(False)
        except RuntimeError:  # dtypes that do not go together
            return chosen.dtype
    # Of several dtypes the result may have the largest anyway, but be computed in it only under autocast.
    several = (
        len({value.dtype for value in flat if isinstance(value, Tensor) and value.is_floating_point()}) > 1
    )
    same = plain is not None and plain.dtype == chosen.dtype and not (several and not plain.equal(chosen))
    return None if same else chosen.dtype


def _cast(value: Any, dtype: torch.dtype, device: str) -> Any:
    """As torch: neither doubles nor, next to tensors of a GPU, numbers of the CPU."""
    if not isinstance(value, Tensor) or held(value).device.type != device:
        return value
    return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
