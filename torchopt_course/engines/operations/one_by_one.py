"""The eager engine: the rule over torch operations, one tensor at a time.

It is the reference. It runs wherever torch runs: every dtype and device, complex numbers, sparse gradients,
tensor subclasses, under dispatch modes and function transforms and, since every operation is one that
autograd knows, also ``differentiable=True``. A rule that is not elementwise, or says what no kernel has a
word for, runs here as it stands.

A rule may fail for any parameter, a user's may even raise an error of its own. So all new values are computed
first and written when nothing can fail any more: either all parameters are stepped or none. A program on
plain tensors cannot fail, and is run in place (:mod:`.in_place`). All else goes through :func:`compute`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..interception import interceptor
from ..layout import is_sparse
from ..local import placed_as
from ..rule.messages import kind
from ..rule.parsed import Specialization
from ..rule.placeholders import RuleError
from ..rule.program import STATE
from ..rule.words import TENSORS, Function


class Write(NamedTuple):
    """New values for a tensor, or for some of its rows."""

    target: Tensor
    values: Tensor
    rows: tuple[Tensor, ...] | None = None


def compute(
    specialization: Specialization,
    param: Tensor,
    grad: Tensor,
    states: Mapping[str, Tensor],
    coefficients: Mapping[str, Any],
    *,
    differentiable: bool = False,
    words: Mapping[str, Function] = TENSORS,
    kept_of_p: torch.dtype | None = None,
) -> list[Write]:
    """Apply a rule to a parameter and its states; nothing is changed yet.

    Args:
        specialization: the rule with its options fixed.
        param, grad: tensors of the same shape. A sparse gradient updates its rows and nothing else.
        states: the states that ``specialization`` keeps, by name.
        coefficients: the rule's coefficients, by name.
        differentiable: let gradients flow through the update: what autograd saves of the old values is
            then a copy, for the originals will be overwritten.
        words: what the words of a program mean.
        kept_of_p: what the new parameter will be stored in, if what a rule computes of it shall be computed
            of the number that is kept; ``None``: of the one that it has computed.
    """
    targets = [param, *(states[name] for name in specialization.states)]
    grad = widened(grad, param)
    if is_sparse(param):
        return _sparse(specialization, targets, grad, coefficients, words, kept_of_p)
    if param.is_complex():
        specialization.refuse_parts("a parameter is complex, and is seen as pairs of real numbers")
    if grad.is_sparse:
        specialization.refuse_parts("a gradient is sparse, and only its rows are visited")
        grad = grad.coalesce()
        rows = tuple(grad.indices())
        old = [target[rows] for target in targets]
        new = _applied(specialization, old, grad.values(), coefficients, words, kept_of_p)
        return [Write(target, values, rows) for target, values in zip(targets, new, strict=True)]
    real = [as_real(target) for target in targets]
    old = [tensor.clone() for tensor in real] if differentiable else real
    new = _applied(specialization, old, as_real(grad), coefficients, words, kept_of_p)
    if not differentiable:
        new = _apart(new, real)
    _refuse_wrappers(param, grad, new)
    for target, values in zip(real, new, strict=True):
        if not torch.can_cast(values.dtype, target.dtype):
            raise RuntimeError(
                f"the step of {specialization.formula.owner} would put {values.dtype} into a tensor of "
                f"{target.dtype}: optimize parameters of a floating point dtype"
            )
    return [_in_place_of(*each) for each in zip(targets, real, new, strict=True)]


def _refuse_wrappers(param: Tensor, grad: Tensor, new: Sequence[Tensor]) -> None:
    """Refuse to put what is more than its numbers (a mask, a second tensor) into a plain parameter."""
    if _is_wrapper(param) or not any(map(_is_wrapper, new)) or interceptor():
        return
    raise RuntimeError(
        f"the parameter is a plain tensor, but its gradient a {type(grad).__name__}, whose parts it cannot "
        "hold: make p.grad a plain tensor"
    )


def _is_wrapper(tensor: Tensor) -> bool:
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _in_place_of(target: Tensor, real: Tensor, values: Tensor) -> Write:
    """What is to be written to a tensor that the rule has seen as ``real``."""
    if target.is_conj():  # its pairs are a copy
        return Write(target, torch.view_as_complex(values.contiguous()))
    return Write(real, placed_as(real, values))


def _sparse(
    specialization: Specialization,
    targets: Sequence[Tensor],
    grad: Tensor,
    coefficients: Mapping[str, Any],
    words: Mapping[str, Function],
    kept_of_p: torch.dtype | None,
) -> list[Write]:
    """A parameter that is sparse itself: in coordinates, for torch cannot subtract compressed tensors."""
    *old, g = (tensor.to_sparse(layout=torch.sparse_coo) for tensor in (*targets, grad))
    new = _applied(specialization, old, g, coefficients, words, kept_of_p)
    writes = []
    for target, values in zip(targets, new, strict=True):
        values = values.coalesce().to_sparse(layout=target.layout)
        if target.layout != torch.sparse_coo and values.values().shape != target.values().shape:
            raise RuntimeError(
                f"the gradient has elements where the parameter of layout {target.layout} has none, which "
                "cannot be added in place: use a parameter of layout torch.sparse_coo"
            )
        writes.append(Write(target, values))
    return writes


def write(writes: Sequence[Write]) -> None:
    """Write new values, in place."""
    for target, values, rows in writes:
        if rows is None:
            target.copy_(values)
        else:
            target[rows] = values


def _applied(
    specialization: Specialization,
    old: Sequence[Tensor],
    grad: Tensor,
    coefficients: Mapping[str, Any],
    words: Mapping[str, Function],
    kept_of_p: torch.dtype | None,
) -> list[Tensor]:
    """The new values of a parameter and its kept states, given the old ones."""
    if specialization.program is None:
        return _by_the_rule(specialization, old, grad, coefficients)
    registers: dict[str, Any] = {"p": old[0], "g": grad}
    registers |= on_device_of(old[0], specialization.program.values(coefficients))
    registers |= {
        STATE.format(name): value for name, value in zip(specialization.states, old[1:], strict=True)
    }
    for line in specialization.program.lines:
        operands = [registers[name] if isinstance(name, str) else name for name in line.operands]
        registers[line.out] = made = words[line.word](*operands)
        if kept_of_p is not None and line.out == specialization.program.results[0]:
            registers[line.out] = made.to(kept_of_p).to(made.dtype)
        for name in line.dying:
            del registers[name]
    return [registers[name] for name in specialization.program.results]


def on_device_of(param: Tensor, numbers: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are known on another device, brought to that of a parameter; truth values as tensors."""
    return {name: _on_device(value, param.device) for name, value in numbers.items()}


def _on_device(value: Any, device: torch.device) -> Any:
    if type(value) is bool:
        return torch.full((), value, dtype=torch.bool, device=device)
    is_elsewhere = isinstance(value, Tensor) and value.device != device and not value.is_cpu
    return value.to(device) if is_elsewhere else value


def _by_the_rule(
    specialization: Specialization, old: Sequence[Tensor], grad: Tensor, coefficients: Mapping[str, Any]
) -> list[Tensor]:
    """The rule as it stands, on copies: only then is it known whether it writes to its arguments."""
    given = dict(
        zip(("p", "g", *specialization.states), (t.clone() for t in (old[0], grad, *old[1:])), strict=True)
    )
    before = {name: _version(tensor) for name, tensor in given.items()}
    states = {name: given[name] for name in specialization.states}
    new = specialization.in_torch(given["p"], given["g"], states, coefficients)
    owner = specialization.formula.owner
    for name, tensor in given.items():
        if _version(tensor) != before[name]:
            raise RuleError(f"{owner}.rule writes into its argument {name!r}: write x = x + y, not x += y")
    results = []
    for name, value, target in zip(("p", *specialization.states), new, old, strict=True):
        if type(value) in (int, float):
            value = torch.full_like(target, value)
        found, expected = _likeness(value), _likeness(target)
        if found != expected:
            raise RuleError(f"{owner}.rule returned a new {name!r} of {found}, expected {expected}")
        results.append(value)
    return results


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # what nobody counts is a copy all the same


def _likeness(value: Any) -> str:
    """What a new value must have in common with the old one."""
    if not isinstance(value, Tensor):
        return kind(value)
    return f"shape {tuple(value.shape)} on {value.device}" + (
        "" if value.layout == torch.strided else f" with layout {value.layout}"
    )


def _apart(new: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """Copies of results that stand in another target's memory (the old ``p``, say): that is written first."""
    memory = [_memory(target) for target in targets]
    return [
        values.clone() if (place := _memory(values)) in memory and place != own else values
        for values, own in zip(new, memory, strict=True)
    ]


def _memory(tensor: Tensor) -> int:
    """What is the same for two tensors that share memory."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # inside of a function transform tensors have no storage
        return id(tensor._base if tensor._is_view() else tensor)


def widened(grad: Tensor, param: Tensor) -> Tensor:
    """A gradient of fewer digits than its parameter, with as many: what is computed of it has them then."""
    if grad.dtype != param.dtype and is_exact(grad.dtype, param.dtype):
        return grad.to(param.dtype)
    return grad


def is_exact(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether each number of a dtype is one of another, too."""
    return torch.promote_types(dtype, other) == other


def as_real(tensor: Tensor) -> Tensor:
    """Complex numbers are pairs of real ones to every optimizer."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
