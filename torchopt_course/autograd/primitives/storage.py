"""What is about a tensor's memory and past as such, not about its value: none of it has a derivative."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from ..dispatch import means
from ..inplace import write
from ..traced import Traced, Value, raw
from ..variable import Variable


def _called_for_each_number(name: str) -> None:
    @means(name, checked=True)
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"Can't call {name}() on a variable: use x.detach().{name}() instead")


for _name in ("apply_", "map_", "map2_"):
    _called_for_each_number(_name)


def _resizes(name: str) -> None:
    @means(name, checked=True)
    def resize(x: Value, *args: Any, **kwargs: Any) -> Value:
        if isinstance(x, Traced):
            raise RuntimeError("cannot resize variables that require grad")
        return getattr(x, name)(*map(raw, args), **kwargs)  # a plain tensor, as a variable


for _name in ("resize_", "resize_as_"):
    _resizes(_name)


@means("resize")
def _resize(x: Value, *sizes: int) -> Value:
    return x.reshape(sizes)


@means("resize_as")
def _resize_as(x: Value, tensor: Value) -> Value:
    return x.reshape(tensor.shape)


@means("detach_", checked=True)
def _detach_in_place(x: Value) -> Value:
    if isinstance(x, Variable):
        return x.detach_()
    if isinstance(x, Traced):
        return write(x, x.detach(), "detach_")
    with torch._C.DisableTorchFunction():  # torch's own, within record()
        return x.detach_()


@means("share_memory_", checked=True)
def _share_memory(x: Value) -> Value:
    raw(x).share_memory_()
    return x
