"""Parameters on a GPU, as many times as there are contenders."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.transforms import clip_global_norm

from ..helpers import parameters

DEVICE = "cuda"
KINDS = ["vector", "matrix", "transposed", "channels_last", "large"]


def twins(count: int = 2, dtype: torch.dtype = torch.float32, kinds: Any = KINDS) -> list[list[Parameter]]:
    return [[Parameter(p.detach().to(DEVICE)) for p in parameters(kinds, dtype)] for _ in range(count)]


def clipped(params: Any, **options: Any) -> Any:
    return oc.Adam(params, transforms=[clip_global_norm(1.0)], **options)
