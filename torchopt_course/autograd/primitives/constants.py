"""Functions without a derivative: they are given plain tensors and give plain tensors."""

from __future__ import annotations

from typing import Any

from ..dispatch import named, register
from ..traced import Traced, raw

NAMES = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "equal",
    "isclose",
    "allclose",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "not_equal",
    "isnan",
    "isinf",
    "isfinite",
    "isneginf",
    "isposinf",
    "isreal",
    "signbit",
    "logical_and",
    "logical_or",
    "logical_not",
    "logical_xor",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "nonzero",
    "count_nonzero",
    "unique",
    "bincount",
    "searchsorted",
    "bucketize",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "randint_like",
    "new",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_tensor",
    "bernoulli",
    "multinomial",
    "is_floating_point",
    "is_complex",
    "is_signed",
    "is_nonzero",
    "is_tensor",
    "is_same_size",
    "is_contiguous",
    "is_pinned",
    "is_inference",
    "is_conj",
    "is_neg",
    "is_set_to",
    "is_shared",
    "result_type",
    "can_cast",
    "numel",
    "nelement",
    "size",
    "stride",
    "dim",
    "ndimension",
    "element_size",
    "storage_offset",
    "data_ptr",
    "get_device",
    "item",
    "tolist",
    "one_hot",
    "linspace",  # between numbers, also of tensors
    "logspace",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__len__",
    "__bool__",
    "__contains__",
    "__and__",
    "__or__",
]


def _constant(function: Any) -> Any:
    def plainly(*args: Any, **kwargs: Any) -> Any:
        return function(*[_plain(arg) for arg in args], **{key: _plain(arg) for key, arg in kwargs.items()})

    return plainly


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(isinstance(each, Traced) for each in value):
        return type(value)(_plain(each) for each in value)
    return raw(value)


for _name in NAMES:
    for _function in named(_name):
        register(_constant(_function), [_function])
