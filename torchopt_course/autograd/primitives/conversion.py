"""Other dtypes and devices for the same elements: the gradient is converted back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..dispatch import means
from ..traced import Traced, Value, raw
from .shapes import clone
from .table import LINEAR, primitive


@primitive(x=lambda g, x_device, x_dtype: g.to(x_device, x_dtype), jvp=LINEAR)
def convert(x: Tensor, device: torch.device, dtype: torch.dtype, pinned: bool = False) -> Tensor:
    return x.to(device, dtype).pin_memory() if pinned else x.to(device, dtype)


# -- the same as torch calls them ----------------------------------------------------------------------------


@means("to")
def _to(x: Value, *args: Any, **kwargs: Any) -> Value:
    """Another dtype or device; asks torch what is meant by trying it on one element."""
    if args and isinstance(args[0], Traced):
        args = (raw(args[0]), *args[1:])
    copy, memory_format = kwargs.pop("copy", False), kwargs.pop("memory_format", None)
    probe = raw(x).new_zeros(()).to(*args, **kwargs)
    if probe.dtype != x.dtype or probe.device != raw(x).device:
        if probe.dtype.is_complex:
            raise NotImplementedError(
                f"no derivative is known for a conversion to {probe.dtype}: variables are real"
            )
        if not probe.dtype.is_floating_point:
            return raw(x).to(*args, **kwargs)
        x, copy = convert(x, probe.device, probe.dtype), False
    if memory_format in (None, torch.preserve_format):
        return clone(x) if copy else x
    laid_out = x.contiguous(memory_format=memory_format)
    return clone(x) if copy and laid_out is x else laid_out


@means("type")
def _type(x: Value, dtype: Any = None) -> Any:
    if dtype is None:
        return raw(x).type()
    probe = raw(x).new_zeros(()).type(dtype)
    return _to(x, probe.device, probe.dtype)


@means("type_as")
def _type_as(x: Value, other: Value) -> Value:
    return _to(x, other.device, other.dtype)


@means("pin_memory", checked=True)
def _pin_memory(x: Value, device: Any = None) -> Value:
    """Into memory from which a GPU may copy while the CPU goes on."""
    return x if raw(x).is_pinned() else convert(x, raw(x).device, x.dtype, True)


def _converter(name: str) -> None:
    @means(name)
    def converter(x: Value, *args: Any, memory_format: Any = None, **kwargs: Any) -> Value:
        probe = getattr(raw(x).new_zeros(()), name)(*args, **kwargs)
        return _to(x, probe.device, probe.dtype, memory_format=memory_format)


for _name in ("float", "double", "half", "bfloat16", "cpu", "cuda", "int", "long", "bool"):
    _converter(_name)
