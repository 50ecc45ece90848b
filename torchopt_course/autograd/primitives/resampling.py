"""Pictures of another size, and values between the pixels.

Interpolation is linear in the picture: each rule is a raw kernel of torch, and the transpose of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..traced import Value
from .table import LINEAR, Primitive, primitive

aten = torch.ops.aten


def _upsampling(name: str) -> None:
    """``aten.upsample_bilinear2d`` and the like: (x, output size, options, scales)."""
    up, down = getattr(aten, name), getattr(aten, f"{name}_backward")

    @primitive(g=lambda v, size, options: upsample(v, size, options), jvp=LINEAR)
    def spread(g: Tensor, size: Any, shape: Any, options: Any) -> Tensor:
        return down(g, size, shape, *options)  # type: ignore[no-any-return]

    @primitive(x=lambda g, x_shape, size, options: spread(g, size, list(x_shape), options), jvp=LINEAR)
    def upsample(x: Tensor, size: Any, options: Any) -> Tensor:
        return up(x, size, *options)  # type: ignore[no-any-return]

    for op, suffix in ((upsample, ""), (spread, "_backward")):
        _rename(op, f"{name}{suffix}")

    @stands_for(up.default)
    def meaning(x: Value, output_size: Any, *options: Any) -> Value:
        return upsample(x, tuple(output_size), options)

    @stands_for(up.vec)
    def by_factor(x: Value, output_size: Any, *options: Any) -> Value:
        *corners, factors = options
        if output_size is None:
            output_size = [int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
        scales = factors or [None] * len(output_size)
        return upsample(x, tuple(output_size), (*corners, *scales))


def _rename(op: Primitive, name: str) -> None:
    from .table import PRIMITIVES

    PRIMITIVES[name] = PRIMITIVES.pop(op.name)
    op.name = name


for _kind in ("nearest", "_nearest_exact"):
    for _rank in (1, 2, 3):
        _upsampling(f"{'_' if _kind[0] == '_' else ''}upsample_{_kind.lstrip('_')}{_rank}d")
for _name in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d"):
    _upsampling(f"upsample_{_name}")
for _name in ("bilinear2d_aa", "bicubic2d_aa"):
    _upsampling(f"_upsample_{_name}")


# -- values between the pixels -------------------------------------------------------------------------------


def _sample(x: Value, grid: Value, how: Any) -> Value:
    """In operations of torch, as it has them for its compiler."""
    from torch._decomp.decompositions import grid_sampler_2d as written

    return written(x, grid, *how)


def _sample_vjp(g: Value, wanted: Sequence[bool], x: Value, grid: Value, how: Any) -> list[Value]:
    from ..transforms import vjp

    if len(grid.shape) == 5:
        raise NotImplementedError("no second derivative is known for grid_sampler_3d")
    _, pull = vjp(lambda x, grid: _sample(x, grid, how), x, grid)
    return [*pull(g), None]


def _sample_kernel(
    g: Tensor, wanted: Sequence[bool], x: Tensor, grid: Tensor, how: Any
) -> list[Tensor | None]:
    kernel = aten.grid_sampler_2d_backward if x.dim() == 4 else aten.grid_sampler_3d_backward
    grads = kernel(g, x, grid, *how, list(wanted[:2]))
    return [*[grad if wish else None for grad, wish in zip(grads, wanted, strict=False)], None]


@primitive(vjp=_sample_vjp, fast=_sample_kernel)
def grid_sample(x: Tensor, grid: Tensor, how: Any) -> Tensor:
    """Pixels of x at places between -1 and 1: (mode, padding, whether the corners are centers of pixels)."""
    return (aten.grid_sampler_2d if x.dim() == 4 else aten.grid_sampler_3d)(x, grid, *how)  # type: ignore[no-any-return]


@stands_for("grid_sampler_2d", "grid_sampler_3d")
def _grid_sampler(x: Value, grid: Value, mode: int, padding: int, align_corners: bool) -> Value:
    return grid_sample(x, grid, (mode, padding, align_corners))


@stands_for("cudnn_grid_sampler")
def _by_cudnn(x: Value, grid: Value) -> Value:
    """What torch takes on a GPU for bilinear, zeros outside, corners at the centers of pixels."""
    return grid_sample(x, grid, (0, 0, True))


@stands_for("pixel_unshuffle")
def _pixel_unshuffle(x: Value, downscale_factor: int) -> Value:
    """Each block of pixels becomes as many channels. Without pixels torch leaves x as it is."""
    if not x.numel():
        return x.clone()
    *batch, channels, height, width = x.shape
    n, first = downscale_factor, len(batch)
    blocks = x.reshape(*batch, channels, height // n, n, width // n, n)
    order = (first, first + 2, first + 4, first + 1, first + 3)
    return blocks.permute(*range(first), *order).reshape(*batch, channels * n * n, height // n, width // n)
