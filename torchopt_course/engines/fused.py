"""Which tensors a fused engine can take: it writes through addresses, so they must be plainly memory."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from .bucket import Candidate
from .eight_bits import CODE
from .guards import PLAIN
from .layout import is_dense, same_layout
from .native.compiler import NoWord
from .rule.parsed import Specialization
from .rule.program import Program

_STEP_DTYPES = (torch.float32, torch.float64)


def why_not_fused(
    candidate: Candidate, device: str, dtypes: Collection[torch.dtype], *, mixed: bool
) -> str | None:
    """Why a parameter cannot be updated through addresses; ``None`` if it can.

    Args:
        device, dtypes: what the engine can take.
        mixed: whether states may be of other dtypes than the parameter.
    """
    param, grad, states, step, scales = candidate
    gradient = {} if grad is None else {"its gradient": grad}
    for label, tensor in {"it": param, **gradient, **states}.items():
        if type(tensor) not in PLAIN:
            return f"{label} is a {type(tensor).__name__}"
        if tensor.layout != torch.strided:
            return f"{label} is sparse" if tensor.is_sparse else f"{label} has the layout {tensor.layout}"
        if tensor.device.type != device:
            return f"{label} is on {tensor.device}"
        if tensor.dtype not in dtypes and not (scales and label in states and tensor.dtype == CODE):
            return f"{label} is of dtype {tensor.dtype}"
        is_other = tensor.dtype != param.dtype and label not in gradient and not (mixed and label in states)
        if tensor.device != param.device or is_other:
            return (
                f"{label} is {tensor.dtype} on {tensor.device}, the parameter {param.dtype} on {param.device}"
            )
        if tensor.shape != param.shape:
            return f"{label} has the shape {tuple(tensor.shape)}, the parameter {tuple(param.shape)}"
        if reason := why_odd(label, tensor):
            return reason
        if label not in ("it", "its gradient") and not same_layout(param, tensor):
            return f"{label} is laid out in memory otherwise than the parameter"
    for label, tensor in scales.items():
        is_plain = type(tensor) in PLAIN and tensor.layout == torch.strided and tensor.is_contiguous()
        if not is_plain or (tensor.device, tensor.dtype) != (param.device, torch.float32):
            return f"{label} is no plain float32 tensor on {param.device}"
        if reason := why_odd(label, tensor):
            return reason
    if not is_dense(param):
        return "its elements are not next to one another in memory"
    return why_odd_step(step, param)


def kernel_program(specialization: Specialization, number: int | None) -> Program:
    """What a kernel is to do: the search of that number, or the update.

    Raises:
        NoWord: the rule is no program, or asks for rows: a kernel knows elements as they lie in memory.
    """
    program = specialization.stage(number)
    if program is None or specialization.reduces_lines:
        raise NoWord(specialization.reason)
    return program


def why_odd(label: str, tensor: Tensor) -> str | None:
    """Why a tensor is not what its memory says, or may not be written to."""
    if tensor.is_neg() or tensor._is_zerotensor() or (tensor.is_complex() and tensor.is_conj()):
        return f"{label} is a lazy view"
    if tensor.is_inference() and label != "its gradient":
        return f"{label} was made in inference mode"
    return None


def why_odd_step(step: Tensor | None, param: Tensor) -> str | None:
    """Why a step count is not one that an engine could count up."""
    if step is None or (
        type(step) is Tensor
        and step.dtype in _STEP_DTYPES
        and step.dim() == 0
        and (step.device.type == "cpu" or step.device == param.device)
    ):
        return None
    return f"its step is not a 0-d float tensor on the CPU or on {param.device}"
