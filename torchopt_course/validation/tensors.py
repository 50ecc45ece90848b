"""Refuse tensors that do not fit together, before anything is changed, in words that help."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ..engines.layout import is_sparse
from .storage import odd_code


def refuse_misfits(
    where: str,
    param: Tensor,
    grad: Tensor,
    own: Any,
    names: Collection[str],
    group: Mapping[str, Any],
    owner: str,
    takes_sparse: bool,
    states_are_alike: bool,
) -> None:
    """Refuse a gradient or a state that does not fit its parameter.

    Args:
        where: the parameter, for the message.
        own, names: its states, and which of them the rule needs; those that are missing are made later.
        owner, takes_sparse: the optimizer, and whether it knows what to do with sparse gradients.
        states_are_alike: whether each state has its parameter's shape.

    Raises:
        RuntimeError: with what was found and what was expected.
        TypeError: a state that is no tensor.
        AssertionError: ``capturable=True`` on a CPU, or with a step count elsewhere, as torch.
    """
    if is_sparse(grad) and not takes_sparse:
        raise RuntimeError(
            f"{owner} does not support sparse gradients, please consider SparseAdam instead, SGD or Adagrad: "
            f"the gradient of {where} is {grad.layout}"
        )
    if group.get("capturable") and param.device.type == "cpu":
        raise AssertionError(f"capturable=True needs parameters on an accelerator, {where} is on the cpu")
    refuse_unwritable(where, param)
    _compare(f"the gradient of {where}", grad, param, ("device", "shape"))
    _refuse_without_memory(f"the gradient of {where}", grad)
    if grad.dtype != param.dtype and not _may_have(param, grad.dtype):
        _compare(f"the gradient of {where}", grad, param, ("dtype",))
    if param.layout != torch.strided:
        _compare(f"the gradient of {where}", grad, param, ("layout",))
    if not isinstance(own, Mapping):
        raise TypeError(f"the state of {where} must be a dictionary, got {type(own).__name__}: {own!r}")
    for name in names:
        state, what = own.get(name), f"state {name!r} of {where}"
        if name == "step":
            continue
        if state is None:
            if odd := odd_code(name, own, param):
                raise RuntimeError(f"{what} is kept in 8 bits, and {odd}")
            continue
        if not isinstance(state, Tensor):
            raise TypeError(f"{what} must be a tensor, got {type(state).__name__}: {state!r}")
        hint = " as the parameter: was it moved or resized after the optimizer had stepped it?"
        if states_are_alike:
            _compare(what, state, param, ("device", "shape"), hint)
        elif not is_on_the_host(state):
            _compare(what, state, param, ("device",), hint)
        refuse_unwritable(what, state, states_are_alike)
    if "step" in names and (step := own.get("step")) is not None:
        _refuse_odd_step(f"state 'step' of {where}", step)
        if group.get("capturable") and step.device != param.device:
            raise AssertionError(
                f"capturable=True needs step counts where the parameters are, the one of {where} is on "
                f"{step.device} (load_state_dict(state_dict()) moves it)"
            )


def _may_have(param: Tensor, dtype: torch.dtype) -> bool:
    """Whether a parameter was told to take gradients of a dtype not its own, and has room for them."""
    if dtype.is_complex and not param.is_complex():
        return False
    return param.is_leaf and getattr(param, "grad_dtype", param.dtype) in (dtype, None)


def _refuse_odd_step(what: str, step: Any) -> None:
    if not isinstance(step, Tensor):
        raise RuntimeError(
            f"{what} must be a singleton tensor, got {step!r}: write torch.tensor(float({step!r}))"
        )
    if step.numel() != 1 or step.dtype == torch.bool or step.is_complex():
        raise RuntimeError(
            f"{what} must be a singleton tensor, got one of shape {tuple(step.shape)} and dtype {step.dtype}"
        )


def is_on_the_host(state: Tensor) -> bool:
    """Whether a state is one number beside the parameter's device, as torch keeps its step counts."""
    return state.dim() == 0 and state.device.type == "cpu"


def refuse_unwritable(what: str, tensor: Tensor, calculates: bool = True) -> None:
    """Refuse what a step could not write to; tensor subclasses know that themselves.

    Args:
        calculates: whether torch must be able to calculate with it.

    Raises:
        RuntimeError: with what was found.
    """
    if tensor.layout == torch._mkldnn:  # type: ignore[attr-defined]
        raise RuntimeError(
            f"{what} has the layout {tensor.layout}, in which torch cannot subtract: to_dense() it"
        )
    if not _is_plain(tensor):
        return
    if tensor._is_zerotensor():
        raise RuntimeError(f"{what} is an immutable zero, without memory: clone() it")
    _refuse_without_memory(what, tensor)
    if torch._debug_has_internal_overlap(tensor) == 1:
        raise RuntimeError(
            f"{what} has several elements in one memory location, as expand() makes them "
            f"(shape {tuple(tensor.shape)}, strides {tensor.stride()}): clone() it before optimizing it"
        )
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(f"{what} was made in inference mode and cannot be written to: clone() it")
    is_small = tensor.is_quantized or (tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1)
    if calculates and (is_small or tensor.dtype == torch.bool):
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


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is memory and nothing else."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _refuse_without_memory(what: str, tensor: Tensor) -> None:
    """torch reads and writes at the address 0, which ends the process."""
    if not _is_plain(tensor) or tensor._is_zerotensor() or not tensor.numel():
        return
    if not tensor.untyped_storage().nbytes():
        raise RuntimeError(f"{what} has no memory: its storage was resized to 0")
