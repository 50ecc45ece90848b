"""Sums, extremes, products and norms, over all or some dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .drawing import SAMPLES, Case, Draw, sample


def _reduction(function: Callable[..., Any]) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = draw.shape()
        dim, keepdim = draw.dims(shape), draw.pick([True, False])
        x = draw.tensor(*shape)
        return (function, (x,)) if dim is None else (lambda x: function(x, dim, keepdim=keepdim), (x,))

    return case


SAMPLES |= {"sum": _reduction(torch.sum), "mean": _reduction(torch.mean)}


def _spread(function: Callable[..., Any]) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = (3, *draw.shape(1, 2))
        dim, correction, keepdim = draw.pick([None, 0, (0, 1)]), draw.pick([0, 1]), draw.pick([True, False])
        return (
            lambda x: function(x, dim, correction=correction, keepdim=keepdim),
            (draw.tensor(*shape),),
        )

    return case


SAMPLES |= {"var": _spread(torch.var), "std": _spread(torch.std)}


def _extreme(name: str) -> Callable[[Draw], Case]:
    def case(draw: Draw) -> Case:
        shape = draw.shape(1, 3)
        x, dim, keepdim = draw.tensor(*shape), draw.dim(shape), draw.pick([True, False])
        ties = torch.round(x)
        short = name.removeprefix("a")
        return draw.pick([
            (lambda x: getattr(torch, name)(x, dim, keepdim=keepdim), (ties,)),
            (getattr(torch, short), (ties,)),
            (lambda x: getattr(torch, short)(x, dim, keepdim=keepdim).values + getattr(torch, name)(x), (x,)),
        ])  # fmt: skip

    return case


SAMPLES |= {"amax": _extreme("amax"), "amin": _extreme("amin")}


@sample
def logsumexp(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim, keepdim = draw.pick([draw.dim(shape), tuple(range(len(shape)))]), draw.pick([True, False])
    return lambda x: torch.logsumexp(x, dim, keepdim=keepdim), (draw.tensor(*shape),)


@sample
def cumsum(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    dim = draw.dim(shape)
    return lambda x: torch.cumsum(x, dim), (draw.tensor(*shape),)


@sample
def prod(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    x, dim, keepdim = draw.tensor(*shape), draw.dim(shape), draw.pick([True, False])
    zeros = torch.where(draw.mask(*shape), x, 0.0)
    return draw.pick([
        (lambda x: torch.prod(x, dim, keepdim=keepdim), (x,)),
        (lambda x: torch.prod(x, dim, keepdim=keepdim), (zeros,)),
        (torch.prod, (x,)),
    ])  # fmt: skip


@sample
def vector_norm(draw: Draw) -> Case:
    shape = draw.shape(1, 3)
    p, dim, keepdim = (
        draw.pick([1, 2, 3, 2.5, math.inf, -math.inf, 0]),
        draw.dims(shape),
        draw.pick([True, False]),
    )
    return draw.pick([
        (lambda x: torch.linalg.vector_norm(x, p, dim, keepdim), (draw.tensor(*shape),)),
        (lambda x: torch.norm(x, p), (draw.tensor(*shape),)),
        (lambda x: x.norm(), (draw.tensor(*shape),)),
    ])  # fmt: skip
