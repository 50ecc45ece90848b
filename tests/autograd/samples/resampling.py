"""Samples of the functions that give pictures another size: one for each kernel of torch and its backward."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from .drawing import SAMPLES, Case, Draw

# Torch's kernel, the mode that leads to it, and how many dimensions the picture has.
KERNELS = [
    *[(f"upsample_nearest{n}d", {"mode": "nearest"}, n) for n in (1, 2, 3)],
    *[(f"_upsample_nearest_exact{n}d", {"mode": "nearest-exact"}, n) for n in (1, 2, 3)],
    ("upsample_linear1d", {"mode": "linear"}, 1),
    ("upsample_bilinear2d", {"mode": "bilinear"}, 2),
    ("upsample_trilinear3d", {"mode": "trilinear"}, 3),
    ("upsample_bicubic2d", {"mode": "bicubic"}, 2),
    ("_upsample_bilinear2d_aa", {"mode": "bilinear", "antialias": True}, 2),
    ("_upsample_bicubic2d_aa", {"mode": "bicubic", "antialias": True}, 2),
]


def _of(how: dict[str, Any], dimensions: int, power: int) -> Any:
    def resized(draw: Draw) -> Case:
        x = draw.tensor(1, 2, *(4, 3, 5)[:dimensions])
        size = draw.pick([(3, 5, 4), (7, 2, 6)])[:dimensions]
        return lambda x: F.interpolate(x, size, **how) ** power, (x,)

    return resized


for _name, _how, _dimensions in KERNELS:
    SAMPLES[_name] = _of(_how, _dimensions, 1)
    # Resizing is linear: only of its square has the backward pass a derivative that is not zero.
    SAMPLES[f"{_name}_backward"] = _of(_how, _dimensions, 2)
