"""Functions without a derivative: they are given plain tensors and give plain tensors."""

from __future__ import annotations

from typing import Any

from ..dispatch import means, named, register
from ..traced import Value, all_raw, is_tensor, raw
from .flat import plainly

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
    "histc",
    "hash_tensor",
    "searchsorted",
    "bucketize",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "randint_like",
    "tensor",  # a copy of numbers
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_tensor",
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


def _constant_of(function: Any) -> Any:
    return lambda *args, **kwargs: plainly(function, args, kwargs)


for _name in NAMES:
    for _function in named(_name):
        register(_constant_of(_function), [_function])


@means("new", checked=True)
def _new(x: Value, *how: Any, **named: Any) -> Value:
    """Of sizes or numbers a constant, of a tensor that tensor once more, as in torch."""
    plain = raw(x).new(*all_raw(how), **named)
    (other,) = [each for each in (*how, *named.values()) if is_tensor(each)] or [None]
    return plain if other is None else other.view_as(other)
