"""Refuse tensors that do not fit together, before anything is changed, in words that help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def refuse_duplicates(params: list[Any]) -> None:
    """Refuse a parameter that stands twice in a group.

    Raises:
        ValueError: with both positions, and its name if the parameters are named.
    """
    first: dict[int, int] = {}
    for position, item in enumerate(params):
        name, param = item if isinstance(item, tuple) else (None, item)
        if first.setdefault(id(param), position) != position:
            label = f" ({name})" if name else ""
            raise ValueError(
                f"a parameter group contains a parameter twice, at {first[id(param)]} and {position}{label}: "
                "it would be stepped twice with the same gradient"
            )


def refuse_misfits(
    where: str,
    param: Tensor,
    grad: Tensor,
    states: Mapping[str, Tensor],
    group: Mapping[str, Any],
    owner: str,
    takes_sparse: bool,
) -> None:
    """Refuse a gradient or a state that does not fit its parameter.

    Args:
        where: the parameter, for the message.
        states: the states that there are already.
        owner, takes_sparse: the optimizer, and whether it knows what to do with sparse gradients.

    Raises:
        RuntimeError: with what was found and what was expected.
        AssertionError: ``capturable=True`` on a CPU, as torch.
    """
    if grad.layout != torch.strided and not (takes_sparse and grad.layout == torch.sparse_coo):
        raise RuntimeError(
            f"{owner} does not support sparse gradients, but that of {where} is {grad.layout}"
            + (" (only sparse_coo is supported)" if takes_sparse else "")
        )
    if group.get("capturable") and param.device.type == "cpu":
        raise AssertionError(f"capturable=True needs parameters on an accelerator, {where} is on the cpu")
    _refuse_unwritable(where, param)
    _compare(f"the gradient of {where}", grad, param, ("device", "dtype", "shape"))
    for name, tensor in states.items():
        hint = " as the parameter: was it moved or resized after the optimizer had stepped it?"
        _compare(f"state {name!r} of {where}", tensor, param, ("device", "shape"), hint)
        _refuse_unwritable(f"state {name!r} of {where}", tensor)


def _refuse_unwritable(what: str, tensor: Tensor) -> None:
    """Refuse what a step could not write to; tensor subclasses know that themselves."""
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return
    if tensor.numel() and not tensor.untyped_storage().nbytes():
        raise RuntimeError(f"{what} has no memory: its storage was resized to 0")
    if torch._debug_has_internal_overlap(tensor) == 1:
        raise RuntimeError(
            f"{what} has several elements in one memory location, as expand() makes them "
            f"(shape {tuple(tensor.shape)}, strides {tensor.stride()}): clone() it before optimizing it"
        )
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(f"{what} was made in inference mode and cannot be written to: clone() it")
    if tensor.dtype == torch.bool or (tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1):
        raise RuntimeError(
            f"{what} is of dtype {tensor.dtype}, which torch does not calculate with: optimize a float32 or "
            "bfloat16 copy"
        )


def _compare(what: str, tensor: Tensor, param: Tensor, properties: tuple[str, ...], hint: str = "") -> None:
    for name in properties:
        got, expected = getattr(tensor, name), getattr(param, name)
        if got != expected:
            if name == "shape":
                got, expected = tuple(got), tuple(expected)
            raise RuntimeError(f"{what} has {name} {got}, expected {expected}{hint}")
