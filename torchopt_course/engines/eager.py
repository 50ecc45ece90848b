"""The eager engine: the rule over torch operations, one tensor at a time.

It is the reference. It runs wherever torch runs: every dtype and device, complex numbers, and, since every
operation is one that autograd knows, also ``differentiable=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .rules import Formula, Rule, Variant, bind


def update(
    variant: Variant,
    param: Tensor,
    grad: Tensor,
    states: Mapping[str, Tensor],
    coefficients: Mapping[str, Any],
    *,
    differentiable: bool = False,
) -> None:
    """Apply a rule to one parameter and its states, in place.

    Args:
        variant: the rule with its options fixed.
        param, grad: tensors of one shape.
        states: the states that ``variant`` keeps, by name; each of the parameter's shape.
        coefficients: the rule's coefficients, by name.
        differentiable: let gradients flow through the update: what autograd saves of the old values is
            then a copy, for the originals are overwritten.
    """
    targets = [param, *(states[name] for name in variant.states)]
    p, g, *old = (_real(tensor) for tensor in (param, grad, *targets[1:]))
    if differentiable:
        p, *old = (tensor.clone() for tensor in (p, *old))
    if variant.maximize:
        g = -g
    # `old` holds the kept states in the rule's order; what is fixed, an absent state included, is not there.
    values = {**coefficients, **variant.fixed, **dict(zip(variant.states, old, strict=True))}
    result = _over_torch(variant.formula)(p, g, *(values[name] for name in variant.formula.arguments))
    new_p, *new = result if variant.formula.states else (result,)
    kept = [
        tensor for name, tensor in zip(variant.formula.states, new, strict=True) if name in variant.states
    ]
    for target, tensor in zip(targets, (new_p, *kept), strict=True):
        _real(target).copy_(tensor)


@cache
def _over_torch(formula: Formula) -> Rule:
    return bind(formula.rule, torch)


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers are pairs of real ones to every optimizer."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
