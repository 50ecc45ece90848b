# ruff: noqa: E501
"""Shapes and indices: the same numbers in other places."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .drawing import Case, Draw, sample


@sample
def reshape(draw: Draw) -> Case:
    x = draw.tensor(2, 3, 4)
    other = torch.zeros(4, 6)
    return draw.pick([
        lambda x: x.reshape(6, -1), lambda x: torch.reshape(x, (4, 6)), lambda x: x.reshape_as(other),
        lambda x: x.ravel(), lambda x: x.unflatten(2, (2, 2)), lambda x: x.repeat(2, 1, 3), lambda x: x.tile(2),
    ]), (x,)  # fmt: skip


@sample
def view(draw: Draw) -> Case:
    return draw.pick([lambda x: x.view(6, 4), lambda x: x.view((-1, 2))]), (
        draw.tensor(2, 3, 4).contiguous(),
    )


@sample
def flatten(draw: Draw) -> Case:
    return draw.pick([torch.flatten, lambda x: x.flatten(1), lambda x: x.flatten(0, 1)]), (
        draw.tensor(2, 3, 4),
    )


@sample
def squeeze(draw: Draw) -> Case:
    return draw.pick([torch.squeeze, lambda x: x.squeeze(0), lambda x: x.squeeze((0, 2))]), (
        draw.tensor(1, 3, 1, 2),
    )


@sample
def unsqueeze(draw: Draw) -> Case:
    shape = draw.shape()
    dim = draw.pick(range(-len(shape) - 1, len(shape) + 1))
    return lambda x: x.unsqueeze(dim), (draw.tensor(*shape),)


@sample
def transpose(draw: Draw) -> Case:
    return draw.pick([lambda x: x.transpose(0, 2), lambda x: x.mT, lambda x: torch.swapaxes(x, -1, 0)]), (
        draw.tensor(2, 3, 4),
    )


@sample
def permute(draw: Draw) -> Case:
    return draw.pick([
        lambda x: x.permute(2, 0, 1), lambda x: torch.permute(x, (-1, 0, 1)), lambda x: x.movedim(0, -1),
        lambda x: x.movedim((0, 1), (2, 0)), lambda x: x[0].t() + x[1].T,
    ]), (draw.tensor(2, 3, 4),)  # fmt: skip


@sample
def expand(draw: Draw) -> Case:
    return draw.pick([
        lambda x: x.expand(2, 4, 3), lambda x: x.expand(-1, 3), lambda x: torch.broadcast_to(x, (5, 4, 3)),
        lambda x: x.expand_as(torch.zeros(4, 3)),
    ]), (draw.tensor(4, 1),)  # fmt: skip


@sample
def flip(draw: Draw) -> Case:
    return draw.pick([lambda x: x.flip(0, 2), lambda x: torch.flip(x, (1,))]), (draw.tensor(2, 3, 4),)


@sample
def roll(draw: Draw) -> Case:
    return draw.pick([lambda x: x.roll(2), lambda x: torch.roll(x, (1, -1), (0, 2))]), (draw.tensor(2, 3, 4),)


@sample
def tril(draw: Draw) -> Case:
    k = draw.pick([-1, 0, 1])
    return lambda x: x.tril(k), (draw.tensor(*draw.shape(0, 1), 3, 4),)


@sample
def triu(draw: Draw) -> Case:
    k = draw.pick([-1, 0, 1])
    return lambda x: torch.triu(x, k), (draw.tensor(*draw.shape(0, 1), 3, 4),)


@sample
def cat(draw: Draw) -> Case:
    a, b, c = draw.tensor(2, 3), draw.tensor(2, 1), draw.tensor(2, 3)
    return draw.pick([
        (lambda a, b: torch.cat([a, b, a], 1), (a, b)), (lambda a, c: torch.cat((a, c)), (a, c)),
        (lambda a, c: torch.stack([a, c, a * c], -1), (a, c)), (lambda a, b: torch.hstack([a, b]), (a, b)),
        (lambda a, c: torch.vstack([a, c]), (a, c)), (lambda a: torch.cat([a, torch.ones(2, 2).to(a)], -1), (a,)),
    ])  # fmt: skip


@sample
def pad_constant(draw: Draw) -> Case:
    pads = draw.pick([(1, 2), (0, 1, 2, 0), (-1, 1), (1, 1, 1, 1, 1, 1)])
    return lambda x: F.pad(x, pads, value=0.7), (draw.tensor(2, 3, 4),)


@sample
def convert(draw: Draw) -> Case:
    other = torch.float32 if draw.dtype == torch.float64 else torch.float64
    return draw.pick([
        lambda x: x.to(other) * 2, lambda x: x.type(other) + x, lambda x: x.to(torch.zeros(1, dtype=other)),
        lambda x: x.float() * x.double(),
    ]), (draw.tensor(*draw.shape()),)  # fmt: skip


@sample
def getitem(draw: Draw) -> Case:
    rows, mask = torch.tensor([0, 2, 2, 1]), draw.mask(4, 3)
    return draw.pick([
        lambda x: x[1], lambda x: x[-1, 2], lambda x: x[1:3, ::2], lambda x: x[..., None, 1:], lambda x: x[rows],
        lambda x: x[:, [0, 0, 1]], lambda x: x[rows, torch.tensor([0, 1, 1, 2])], lambda x: x[mask],
        lambda x: x[rows[:, None], [0, 2]], lambda x: torch.stack(x.unbind(1)), lambda x: x.narrow(0, 1, 2),
        lambda x: x.select(1, -1), lambda x: x.index_select(1, rows[:2]), lambda x: x.masked_select(mask),
        lambda x: sum(p.sum() * i for i, p in enumerate(x.split(3), 1)), lambda x: torch.chunk(x, 2)[1],
        lambda x: x.split([1, 2], 1)[1], lambda x: x[None, 2:, True], lambda x: x.repeat_interleave(2, 0),
    ]), (draw.tensor(4, 3),)  # fmt: skip


@sample
def pick(draw: Draw) -> Case:
    return draw.pick([
        lambda x: F.pad(x, (1, 2), mode="reflect"), lambda x: F.pad(x, (2, 1), mode="replicate"),
        lambda x: F.pad(x, (1, 1), mode="circular"), lambda x: x[0].diagonal(), lambda x: x.diagonal(1, -2, -1),
        lambda x: x.unfold(2, 2, 1), lambda x: torch.diag(x[0]), lambda x: x[1, :, :3].trace(),
    ]), (draw.tensor(2, 3, 4),)  # fmt: skip


@sample
def unpick(draw: Draw) -> Case:
    return draw.pick([torch.diag, lambda x: torch.diag(x, 1)]), (draw.tensor(4),)


@sample
def gather(draw: Draw) -> Case:
    index = draw.labels(4, 2, 3)
    return draw.pick([
        lambda x: torch.gather(x, 1, index), lambda x: x.gather(-1, index[:1]), lambda x: x.sort(1).values,
        lambda x: x.topk(2).values, lambda x: x.median(1).values, lambda x: x.max(0).values,
        lambda x: torch.take_along_dim(x, index, 1), lambda x: x.sort(0, descending=True)[0], torch.median,
    ]), (draw.tensor(2, 4),)  # fmt: skip


@sample
def scatter_zeros(draw: Draw) -> Case:
    index = draw.labels(4, 2, 3)
    return lambda x, src: x.scatter_add(1, index, src), (draw.tensor(2, 4), draw.tensor(2, 3))


@sample
def embedding(draw: Draw) -> Case:
    tokens, padding = draw.labels(5, *draw.shape(0, 2)), draw.pick([None, 2])
    by_frequency = draw.pick([True, False]) and bool(tokens.dim())
    return (
        lambda w: F.embedding(tokens, w, padding, scale_grad_by_freq=by_frequency),
        (draw.tensor(5, 3),),
    )
