"""What a class of yours declares: each mistake is named with the class, what was found, what was expected."""

from __future__ import annotations

import inspect
import keyword
import sys
from collections.abc import Iterable, Mapping
from numbers import Real
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ..engines.rule.messages import kind
from .tensors import is_on_the_host, refuse_unwritable

_EXPECTED = {
    "rule": "rule(p, g, *states, *coefficients), which returns the new p and states",
    "coefficients": "coefficients(lr, ...), which returns a dictionary with the numbers that the rule takes",
}
_TAKEN = {"p": "the parameter", "g": "the gradient", "step": "the number of steps"}


def refuse_mistakes(cls: Any) -> None:
    """Refuse a class whose declarations cannot be a formula.

    Raises:
        TypeError: with the class, what was found and what was expected.
    """
    for name, expected in _EXPECTED.items():
        found = inspect.getattr_static(cls, name, None)
        if found is None:
            raise TypeError(f"{cls.__name__} has no {name}: expected a @staticmethod {expected}")
        if isinstance(found, classmethod | property) or not callable(getattr(cls, name)):
            raise TypeError(f"{cls.__name__}.{name} is {kind(found)}, expected a @staticmethod {expected}")
        if isinstance(found, FunctionType) and "self" not in found.__code__.co_varnames[:1]:
            raise TypeError(
                f"{cls.__name__}.{name} is a method, expected a @staticmethod: write that above it"
            )
    states, optional = cls.states, cls.optional_states
    if isinstance(states, str) or not isinstance(states, tuple | list):
        raise TypeError(
            f"{cls.__name__}.states is {kind(states)}, expected a tuple of names, as ('exp_avg',)"
        )
    if not isinstance(optional, Mapping):
        raise TypeError(
            f"{cls.__name__}.optional_states is {kind(optional)}, expected a dictionary from the name of a "
            "state to that of the option with which it is kept"
        )
    seen = set()
    for state in (*states, *optional):
        if not isinstance(state, str) or not state.isidentifier() or keyword.iskeyword(state):
            raise TypeError(f"{cls.__name__} has {kind(state)} among its states, expected a name")
        if state in _TAKEN:
            raise TypeError(f"{cls.__name__} calls a state {state!r}, which is {_TAKEN[state]} already")
        if state in seen:
            raise TypeError(f"{cls.__name__} has the state {state!r} twice, expected each once")
        seen.add(state)
    renews = cls.renews
    if isinstance(renews, str) or not isinstance(renews, tuple | list) or len({*renews}) < len(renews):
        raise TypeError(
            f"{cls.__name__}.renews is {kind(renews)}, expected a tuple of names of options, each once"
        )
    _refuse_unclear_coefficients(cls)
    if not seen and "first" in inspect.signature(cls.coefficients).parameters:
        raise TypeError(
            f"{cls.__name__}.coefficients asks for 'first', but the class has no states, by which the first "
            "step of a parameter is known, after a checkpoint too: ask for 'step', or declare states"
        )


def _refuse_unclear_coefficients(cls: Any) -> None:
    where = f"{cls.__name__}.coefficients"
    try:
        parameters = inspect.signature(cls.coefficients).parameters
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where} is {kind(cls.coefficients)}, expected a plain function") from error
    if [*parameters][:1] in (["self"], ["cls"]):
        raise TypeError(
            f"{where} starts with {next(iter(parameters))!r}, expected options: is @staticmethod missing?"
        )
    for name, parameter in parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(f"{where} takes {parameter}, expected each option that it needs by its name")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"{where} takes {name!r} by position only, expected it by name")
        if parameter.default is not inspect.Parameter.empty:
            raise TypeError(f"{where} has a default for {name!r}, expected none: defaults stand in __init__")


def requested_options(cls: Any, part: str, names: Iterable[str], group: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a class asks for.

    Raises:
        TypeError: one of them is no option of the group.
    """
    try:
        return {name: group[name] for name in names}
    except KeyError as error:
        there = ", ".join(sorted(name for name in group if name not in ("params", "param_names")))
        where = f"{cls.__name__}.{part}"
        raise TypeError(f"{where} asks for {error}, expected step, first or an option: {there}") from None


def refuse_nan(cls: Any, coefficients: Mapping[str, Any]) -> None:
    """Refuse coefficients of the first step that are NaN. Later ones may be: p is so then, as in torch.

    Raises:
        ValueError: one of them is NaN.
    """
    for name, value in coefficients.items():
        if isinstance(value, Tensor):
            is_nan = value.device.type == "cpu" and value.numel() == 1 and bool(value != value)
        else:
            is_nan = isinstance(value, Real) and value != value
        if is_nan:
            raise ValueError(f"{cls.__name__}.coefficients returned nan for {name!r}, expected a number")


def refuse_part_of_the_parameters(owner: str) -> None:
    """Refuse to be made by what gives each process some of the parameters, and does not say so.

    Raises:
        RuntimeError: it is a ``ZeroRedundancyOptimizer`` that makes this optimizer.
    """
    zero = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = None if zero is None else sys._getframe(1)
    while zero is not None and frame is not None:
        if isinstance(frame.f_locals.get("self"), zero.ZeroRedundancyOptimizer):
            raise RuntimeError(
                f"{owner} looks at all tensors together, but ZeroRedundancyOptimizer gives each "
                "process some of the parameters: shard them with fully_shard instead"
            )
        frame = frame.f_back


def fitting(where: str, value: Any, param: Tensor) -> Tensor:
    """What ``initial_state`` has made, if it is a tensor like the parameter.

    Raises:
        TypeError: it is no tensor.
        RuntimeError: of another shape, on another device, no floating point, or the parameter's own memory.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{where} is {kind(value)}, expected a tensor like the parameter")
    if value.shape != param.shape or value.device != param.device:
        raise RuntimeError(
            f"{where} has shape {tuple(value.shape)} on {value.device}, expected {tuple(param.shape)} on "
            f"{param.device} as the parameter: a rule sees one number of each at a time"
        )
    if _is_real_or_complex(param) and not _is_real_or_complex(value):
        raise RuntimeError(
            f"{where} has dtype {value.dtype}, expected floating point: it would be cut to that"
        )
    if value.is_complex() != param.is_complex():
        raise RuntimeError(f"{where} has dtype {value.dtype}, expected one as {param.dtype} of the parameter")
    _refuse_memory_of(where, value, param)
    return value


def fitting_beside(where: str, value: Any, param: Tensor) -> Tensor | None:
    """What ``initial_state`` has made for a rule of whole tensors, if it can be a state beside the parameter.

    Raises:
        TypeError: it is neither a tensor nor ``None``.
        RuntimeError: it is on another device (and not one number on the host), requires a gradient, cannot be
            written to, is sparse, or the parameter's own memory.
    """
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise TypeError(f"{where} is {kind(value)}, expected a tensor, or None for a parameter without it")
    if value.device != param.device and not is_on_the_host(value):
        raise RuntimeError(
            f"{where} is on {value.device}, expected {param.device} as the parameter, or a number on the cpu"
        )
    if value.requires_grad:
        raise RuntimeError(f"{where} requires a gradient, expected numbers alone: detach() it")
    if value.layout != torch.strided:
        raise RuntimeError(f"{where} has the layout {value.layout}, expected {torch.strided}")
    refuse_unwritable(where, value, calculates=False)
    _refuse_memory_of(where, value, param)
    return value


def _refuse_memory_of(where: str, value: Tensor, param: Tensor) -> None:
    for label, other in {
        "the parameter": param,
        "its gradient": param.grad if param.is_leaf else None,
    }.items():
        if type(value) in (Tensor, Parameter) and other is not None and _same_memory(value, other):
            raise RuntimeError(f"{where} is {label} itself, expected memory of its own: clone() it")


def _is_real_or_complex(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _same_memory(a: Tensor, b: Tensor) -> bool:
    try:
        places = [(tensor.untyped_storage()._cdata, tensor.storage_offset()) for tensor in (a, b)]
    except (NotImplementedError, RuntimeError):  # sparse ones, and inside of a function transform
        return False
    return bool(a.numel() and places[0] == places[1])
