"""The eager engine: the rule over torch operations, one tensor at a time.

It is the reference. It runs wherever torch runs: every dtype and device, complex numbers, sparse gradients
and, since every operation is one that autograd knows, also ``differentiable=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .rules import Rule, Variant, bind


def update(
    variant: Variant,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    coefficients: Mapping[str, Any],
    *,
    differentiable: bool = False,
) -> None:
    """Apply a rule to parameters and their states, in place.

    Args:
        variant: the rule with its options fixed.
        params, grads: tensors of the same shapes. A sparse gradient updates its rows and nothing else.
        states: for each parameter the states that ``variant`` keeps, by name.
        coefficients: the rule's coefficients, by name.
        differentiable: let gradients flow through the update: what autograd saves of the old values is
            then a copy, for the originals are overwritten.
    """
    for param, grad, own in zip(params, grads, states, strict=True):
        targets = [param, *(own[name] for name in variant.states)]
        if grad.is_sparse:
            grad = grad.coalesce()
            rows = tuple(grad.indices())
            touched = [target[rows] for target in targets]
            new = _applied(variant, touched, grad.values(), coefficients)
            for target, values in zip(targets, new, strict=True):
                target[rows] = values
        else:
            real = [as_real(target) for target in targets]
            old = [tensor.clone() for tensor in real] if differentiable else real
            new = _applied(variant, old, as_real(grad), coefficients)
            if not differentiable:
                new = _apart(new, real)
            for target, values in zip(real, new, strict=True):
                target.copy_(values)


def _applied(
    variant: Variant, old: Sequence[Tensor], grad: Tensor, coefficients: Mapping[str, Any]
) -> list[Tensor]:
    """The new values of a parameter and its kept states, given the old ones."""
    # What is fixed, an absent state included, is not among the kept states.
    values = {**coefficients, **variant.fixed, **dict(zip(variant.states, old[1:], strict=True))}
    g = -grad if variant.maximize else grad
    result = over_torch(variant.formula.rule)(old[0], g, *(values[n] for n in variant.formula.arguments))
    new_p, *new = result if variant.formula.states else (result,)
    kept = dict(zip(variant.formula.states, new, strict=True))
    return [new_p, *(kept[name] for name in variant.states)]


def _apart(new: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """Copies of results that stand in another target's memory (the old ``p``, say): that is written first."""
    memory = [target.untyped_storage().data_ptr() for target in targets]
    places = [values.untyped_storage().data_ptr() for values in new]
    return [
        values.clone() if place in memory and place != own else values
        for values, place, own in zip(new, places, memory, strict=True)
    ]


@cache
def over_torch(rule: Rule) -> Rule:
    """The rule with torch as its namespace."""
    return bind(rule, torch)


def as_real(tensor: Tensor) -> Tensor:
    """Complex numbers are pairs of real ones to every optimizer."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
