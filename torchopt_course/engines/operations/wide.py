"""A wide step by torch: the rule over float32 copies, the results rounded once; what kernels do in one pass.

The same numbers as a kernel's, bit for bit, where operations are exact to the last place (arithmetic and
square roots), in each way of rounding: see :mod:`..storage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from ..eight_bits import CODE, coded_keys, decode, encode
from ..layout import is_dense
from ..rule.parsed import Specialization
from ..rule.words import TENSORS
from ..storage import (
    FIRST_FACTOR,
    HALF_OF_A_PLACE,
    HALVES,
    LARGEST_BFLOAT16,
    LARGEST_FLOAT16,
    NEXT,
    SECOND_FACTOR,
    SHIFTS,
    compensated,
    compensation,
    computed_in,
)
from . import one_by_one
from .one_by_one import Write

_WORD = 0xFFFFFFFF


def _sqrt(x: Tensor) -> Tensor:
    """A kernel's square root has the last place right, torch's of float32 has not always."""
    return x.double().sqrt().to(x.dtype)


EXACT = {**TENSORS, "sqrt": _sqrt, "rsqrt": lambda x: _sqrt(x).reciprocal()}


def compute(
    own: Mapping[str, Tensor],
    rounding: str,
    keys: Sequence[int] | None,
    specialization: Specialization,
    param: Tensor,
    grad: Tensor,
    states: Mapping[str, Tensor],
    coefficients: Mapping[str, Any],
    *,
    differentiable: bool = False,
) -> list[Write]:
    """As :func:`.one_by_one.compute`, but computed in float32, or in float64 where a tensor has that.

    Args:
        own: all of the parameter's states, those that keep rounding errors too.
        rounding, keys: how results are rounded, and what random bits are a function of.
    """
    targets = {"p": param, **{name: states[name] for name in specialization.states}}
    real, old = widened(own, rounding, param, states)
    if real is None:
        return one_by_one.compute(
            specialization, param, grad, states, coefficients, differentiable=differentiable
        )
    dtypes = {name: tensor.dtype for name, tensor in targets.items()}
    kept = {name: own[compensation(name)] for name in compensated(rounding, dtypes)}
    scales = {name: own[coded_keys(name)[1]] for name, dtype in dtypes.items() if dtype == CODE}
    new = one_by_one.compute(
        specialization,
        old["p"],
        grad.to(real),
        {name: old[name] for name in specialization.states},
        coefficients,
        differentiable=differentiable,
        words=EXACT,
        kept_of_p=param.dtype if rounding == "nearest" else None,
    )
    by_chance = [name for name in targets if rounding == "stochastic" and dtypes[name] in (*HALVES, CODE)]
    words = _words(param, keys, (len(by_chance) + 1) // 2) if by_chance else []
    writes: list[Write] = []
    for (name, target), (_, values, rows) in zip(targets.items(), new, strict=True):
        bits = None
        if name in by_chance:
            place = by_chance.index(name)
            word = words[place // 2]
            bits = word >> 16 if place % 2 else word & 0xFFFF
        if name in scales:
            both = encode(
                _laid_out_as(target, values.float()), None if bits is None else _laid_out_as(target, bits)
            )
            writes += map(Write, (target, scales[name]), both)
            continue
        if bits is not None:
            values = _BY_CHANCE[target.dtype](values.float(), bits)
        rounded = values.to(target.dtype)
        writes.append(Write(target, rounded, rows))
        if name in kept:
            # Of infinity and NaN nothing is lost.
            lost = values - rounded.to(real)
            lost = torch.where(lost.abs() < inf, lost, torch.zeros_like(lost))
            writes.append(Write(kept[name], lost.to(target.dtype), rows))
    return writes


def widened(
    own: Mapping[str, Tensor], rounding: str, param: Tensor, states: Mapping[str, Tensor]
) -> tuple[torch.dtype | None, dict[str, Tensor]]:
    """The dtype that is computed in, with ``"p"`` and the states in that; ``None`` if it is their own."""
    targets = {"p": param, **states}
    dtypes = {name: tensor.dtype for name, tensor in targets.items()}
    if param.is_complex() or HALVES.isdisjoint(dtypes.values()):
        real = None if len({*dtypes.values()}) == 1 else computed_in([*dtypes.values()])
    else:
        real = computed_in([*dtypes.values()])
    if real is None:
        return None, targets
    old = {
        name: (decode(tensor, own[coded_keys(name)[1]]) if tensor.dtype == CODE else tensor).to(real)
        for name, tensor in targets.items()
    }
    for name in compensated(rounding, dtypes):
        old[name] = old[name] + own[compensation(name)].to(real)
    return real, old


def _laid_out_as(codes: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(codes, dtype=values.dtype).copy_(values)


def _words(param: Tensor, keys: Sequence[int] | None, count: int) -> list[Tensor]:
    """Random words for each element, counted as it lies in memory, of 32 bits as int64."""
    assert keys is not None, "where chance rounds there are keys"
    index = torch.arange(param.numel(), device=param.device)
    lies = param.layout == torch.strided and is_dense(param)
    index = index.as_strided(param.shape, param.stride()) if lies else index.view(param.shape)
    words = [_mixed((index & _WORD) ^ keys[0], keys[1])]
    while len(words) < count:
        words.append(_mixed((words[-1] + NEXT) & _WORD, 0))
    return words


def _mixed(word: Tensor, key: int) -> Tensor:
    first, second, last = SHIFTS
    word = word ^ (word >> first)
    word = (word * FIRST_FACTOR + key) & _WORD
    word = word ^ (word >> second)
    word = (word * SECOND_FACTOR) & _WORD
    return word ^ (word >> last)


def _within(number: Tensor, bits: Tensor, largest: int) -> Tensor:
    """The random bits, but for numbers beyond a format's largest one."""
    beyond = (number.view(torch.int32) & 0x7FFFFFFF) > largest
    return torch.where(beyond, HALF_OF_A_PLACE, bits).to(torch.int32)


def _to_bfloat16(number: Tensor, bits: Tensor) -> Tensor:
    """Up as often as the number is on the way up to the next bfloat16."""
    word = (number.view(torch.int32) + _within(number, bits, LARGEST_BFLOAT16)) & ~0xFFFF
    return torch.where(number.isnan(), number, word.view(torch.float32))


def _to_float16(number: Tensor, bits: Tensor) -> Tensor:
    """Below 2**-14 the places of float16 are whole multiples of 2**-24."""
    word = (number.view(torch.int32) + (_within(number, bits, LARGEST_FLOAT16) >> 3)) & ~0x1FFF
    usual = torch.where(number.isnan(), number, word.view(torch.float32))
    places = number.abs() * 2.0**24
    below = places.floor()
    up = bits < (places - below) * 2.0**16
    small = torch.copysign((below + up) * 2.0**-24, number)
    return torch.where(number.abs() < 2.0**-14, small, usual)


_BY_CHANCE = {torch.bfloat16: _to_bfloat16, torch.float16: _to_float16}
