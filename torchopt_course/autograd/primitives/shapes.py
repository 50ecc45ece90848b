"""Other shapes for the same elements: the gradient goes back the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import means, named
from ..traced import Value, raw
from .table import LINEAR, primitive


@primitive(x=lambda g, x_shape: g.reshape(x_shape), jvp=LINEAR, views=True)
def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(shape)


# A tangent may lie otherwise in memory.
@primitive(x=lambda g, x_shape: g.reshape(x_shape), jvp=lambda x_dot, shape: x_dot.reshape(shape), views=True)
def view(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.view(shape)


@primitive("flatten", x=lambda g, x_shape: g.reshape(x_shape), jvp=LINEAR, views=True)
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    return torch.flatten(x, start_dim, end_dim)


@primitive("squeeze", x=lambda g, x_shape: g.reshape(x_shape), jvp=LINEAR, views=True)
def squeeze(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    return torch.squeeze(x) if dim is None else torch.squeeze(x, dim)


@primitive("unsqueeze", x=lambda g, x_shape: g.reshape(x_shape), jvp=LINEAR, views=True)
def unsqueeze(x: Tensor, dim: int) -> Tensor:
    return torch.unsqueeze(x, dim)


@primitive("transpose", "swapaxes", "swapdims",
           x=lambda g, dim0, dim1: g.transpose(dim0, dim1), jvp=LINEAR, views=True)  # fmt: skip
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    return torch.transpose(x, dim0, dim1)


def _inverse(dims: Sequence[int]) -> list[int]:
    return sorted(range(len(dims)), key=lambda i: dims[i] % len(dims))


@primitive(x=lambda g, dims: g.permute(_inverse(dims)), jvp=LINEAR, views=True)
def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    return torch.permute(x, tuple(dims))


# What was repeated is summed up behind every VJP, here as for all broadcasting.
@primitive(x=lambda g: g, jvp=LINEAR, views=True)
def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.expand(shape)


@primitive(x=lambda g, dims: torch.flip(g, dims), jvp=LINEAR)
def flip(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return torch.flip(x, dims)


@primitive(x=lambda g, shifts, dims: torch.roll(g, tuple(-s for s in shifts), dims), jvp=LINEAR)
def roll(x: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    return torch.roll(x, shifts, dims)


@primitive("tril", x=lambda g, diagonal: torch.tril(g, diagonal), jvp=LINEAR)
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    return torch.tril(x, diagonal)


@primitive("triu", x=lambda g, diagonal: torch.triu(g, diagonal), jvp=LINEAR)
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    return torch.triu(x, diagonal)


def _cat_vjp(g: Value, wanted: Sequence[bool], sizes: list[int], dim: int) -> list[Value]:
    pieces = torch.split(g, sizes, dim)
    return [None, None, *[piece if wish else None for piece, wish in zip(pieces, wanted[2:], strict=True)]]


@primitive(vjp=_cat_vjp, jvp=LINEAR)
def cat(sizes: Sequence[int], dim: int, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, dim)


# Padding with negative numbers cuts off.
@primitive(x=lambda g, padding: F.pad(g, [-n for n in padding]),
           jvp=lambda x_dot, padding: F.pad(x_dot, padding))  # fmt: skip
def pad_constant(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    return F.pad(x, list(padding), value=value)


@primitive("clone", x=lambda g: g, jvp=LINEAR, symbolic="x")
def clone(x: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
    return x.clone(memory_format=memory_format)


# -- the same as torch calls them ----------------------------------------------------------------------------


def _listed(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """x.view(2, 3) and x.view((2, 3)) say the same."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], list | tuple) else numbers


@means("reshape", checked=True)
def _reshape(x: Value, *shape: Any, **named: Any) -> Value:
    return reshape(x, _listed(shape or (named["shape"],)))


@means("view", checked=True)
def _view(x: Value, *shape: Any, dtype: torch.dtype | None = None) -> Value:
    if dtype is not None or isinstance(shape[0], torch.dtype):  # other numbers in the same bits: a constant
        return raw(x).detach().view(dtype or shape[0])
    return view(x, _listed(shape))


@means("view_as", "reshape_as")
def _reshape_as(x: Value, other: Value) -> Value:
    return reshape(x, other.shape)


@means("ravel")
def _ravel(x: Value) -> Value:
    return reshape(x, (-1,))


@means("unflatten")
def _unflatten(x: Value, dim: int, sizes: Sequence[int]) -> Value:
    return reshape(x, torch.unflatten(raw(x), dim, sizes).shape)


@means("permute", checked=True)
def _permute(x: Value, *dims: Any, **named: Any) -> Value:
    return permute(x, _listed(dims or (named["dims"],)))


def _transposes(name: str) -> None:
    """One of torch's names for a transpose. Of which shapes it is one torch says: it raises, or warns."""
    by_torch = named(name)[0]

    @means(name, checked=True)
    def transposed(x: Value) -> Value:
        by_torch(raw(x))
        dims = list(range(len(x.shape)))
        if name in ("t", "T", "H"):
            return permute(x, tuple(reversed(dims)))
        return permute(x, (*dims[:-2], *reversed(dims[-2:])))


for _name in ("t", "T", "H", "mT", "mH", "adjoint"):
    _transposes(_name)


@means("movedim", "moveaxis")
def _movedim(x: Value, source: Any, destination: Any) -> Value:
    count = len(x.shape)
    sources = [d % count for d in ([source] if isinstance(source, int) else source)]
    targets = [d % count for d in ([destination] if isinstance(destination, int) else destination)]
    order = [d for d in range(count) if d not in sources]
    for target, moved in sorted(zip(targets, sources, strict=True)):
        order.insert(target, moved)
    return permute(x, order)


@means("expand")
def _expand(x: Value, *shape: Any, implicit: bool = False) -> Value:
    return expand(x, _listed(shape))


@means("expand_as")
def _expand_as(x: Value, other: Value) -> Value:
    return expand(x, other.shape)


@means("broadcast_to")
def _broadcast_to(x: Value, size: Sequence[int]) -> Value:
    return expand(x, size)


@means("broadcast_tensors")
def _broadcast_tensors(*tensors: Value) -> tuple[Value, ...]:
    tensors = _listed(tensors)
    shape = torch.broadcast_shapes(*[t.shape for t in tensors])
    return tuple(expand(t, shape) for t in tensors)


@means("sum_to_size")
def _sum_to_size(x: Value, *size: Any) -> Value:
    from ..reverse import unbroadcast

    shape = torch.Size(_listed(size))
    return x if x.shape == shape else unbroadcast(x, shape, "sum_to_size")


@means("flip")
def _flip(x: Value, *dims: Any) -> Value:
    return flip(x, _listed(dims))


@means("roll")
def _roll(x: Value, shifts: Any, dims: Any = None) -> Value:
    if dims is None or dims == ():
        return roll(x.reshape(-1), _listed((shifts,)), (0,)).reshape(x.shape)
    return roll(x, _listed((shifts,)), _listed((dims,)))


@means("repeat")
def _repeat(x: Value, *repeats: Any) -> Value:
    """As expanding along new dimensions, which are then merged with the old ones."""
    counts = _listed(repeats)
    sizes = [1] * (len(counts) - len(x.shape)) + list(x.shape)
    apart = [part for size in sizes for part in (1, size)]
    spread = [part for count, size in zip(counts, sizes, strict=True) for part in (count, size)]
    merged = [count * size for count, size in zip(counts, sizes, strict=True)]
    repeated = x.reshape(apart).expand(spread).reshape(merged)
    return repeated.clone() if all(count == 1 for count in counts) else repeated  # never a view of x


@means("tile")
def _tile(x: Value, *dims: Any) -> Value:
    counts = _listed(dims)
    return _repeat(x, [1] * (len(x.shape) - len(counts)) + list(counts))


@means("cat", "concat", "concatenate")
def _cat(tensors: Sequence[Value], dim: int = 0, **named: Any) -> Value:
    dim = named.get("axis", dim)
    # torch lets an empty vector stand for nothing, whatever the other shapes.
    parts = [t for t in tensors if tuple(t.shape) != (0,)] or list(tensors)
    return cat([part.shape[dim] for part in parts], dim, *parts)


@means("stack")
def _stack(tensors: Sequence[Value], dim: int = 0) -> Value:
    dim = dim % (len(tensors[0].shape) + 1)
    return _cat([t.unsqueeze(dim) for t in tensors], dim)


@means("hstack")
def _hstack(tensors: Sequence[Value]) -> Value:
    parts = [t.reshape(1) if not t.shape else t for t in tensors]
    return _cat(parts, 0 if len(parts[0].shape) == 1 else 1)


@means("vstack")
def _vstack(tensors: Sequence[Value]) -> Value:
    return _cat([t.reshape(1, -1) if len(t.shape) < 2 else t for t in tensors], 0)


@means(F.pad, torch._C._nn.pad)
def _pad(input: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    from .indexing import pick

    if mode == "constant":
        return pad_constant(input, tuple(pad), value or 0.0)
    # The other modes only say where each element comes from.
    return pick(input, lambda positions: F.pad(positions.double(), list(pad), mode=mode).long())


@means("pad_sequence")
def _pad_sequence(
    sequences: Sequence[Value], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Value:  # fmt: skip
    longest = max(len(x) for x in sequences)

    def padded(x: Value) -> Value:
        ends = [0, longest - len(x)] if padding_side == "right" else [longest - len(x), 0]
        return F.pad(x, [0, 0] * (x.dim() - 1) + ends, value=padding_value)

    return torch.stack([padded(x) for x in sequences], 0 if batch_first else 1)


@means("contiguous")
def _contiguous(x: Value, memory_format: torch.memory_format = torch.contiguous_format) -> Value:
    already = raw(x).is_contiguous(memory_format=memory_format)
    return x if already else clone(x, memory_format=memory_format)


@means("detach")
def _detach(x: Value) -> Tensor:
    return raw(x).detach()  # type: ignore[no-any-return]


@means("real", "positive", "conj", "alias")
def _itself(x: Value, *args: object) -> Value:
    return x
