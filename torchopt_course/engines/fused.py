"""The fused engines, and which tensors they can take."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .bucket import Bucket
from .cpu import CpuBucket
from .cuda import CudaBucket
from .guards import PLAIN
from .layout import is_dense, same_layout

# By the device that they run on.
FUSED: dict[str, type[Bucket]] = {"cpu": CpuBucket, "cuda": CudaBucket}
_STEP_DTYPES = (torch.float32, torch.float64)


def why_not_fused(
    param: Tensor, grad: Tensor | None, states: Mapping[str, Tensor], step: Tensor | None
) -> str | None:
    """Why no fused engine can take a parameter, or could if it had a gradient; ``None`` if one can."""
    engine = FUSED.get(param.device.type)
    gradient = {} if grad is None else {"its gradient": grad}
    for label, tensor in {"it": param, **gradient, **states}.items():
        if type(tensor) not in PLAIN:
            return f"{label} is a {type(tensor).__name__}"
        if tensor.layout != torch.strided:
            return f"{label} is sparse" if tensor.is_sparse else f"{label} has the layout {tensor.layout}"
        if engine is None:
            return f"{label} is on {tensor.device}"
        if tensor.dtype not in engine.DTYPES:
            return f"{label} is of dtype {tensor.dtype}"
        if tensor.device != param.device or tensor.dtype != param.dtype:
            return (
                f"{label} is {tensor.dtype} on {tensor.device}, the parameter {param.dtype} on {param.device}"
            )
        if tensor.shape != param.shape:
            return f"{label} has the shape {tuple(tensor.shape)}, the parameter {tuple(param.shape)}"
        if tensor.is_neg() or tensor._is_zerotensor():
            return f"{label} is a lazy view"
        if tensor.is_inference() and label != "its gradient":
            return f"{label} was made in inference mode"
        if label not in ("it", "its gradient") and not same_layout(param, tensor):
            return f"{label} is laid out in memory otherwise than the parameter"
    if not is_dense(param):
        return "its elements are not next to one another in memory"
    if step is not None and not (
        type(step) is Tensor
        and step.dtype in _STEP_DTYPES
        and step.dim() == 0
        and (step.device.type == "cpu" or step.device == param.device)
    ):
        return f"its step is not a 0-d float tensor on the CPU or on {param.device}"
    return None
