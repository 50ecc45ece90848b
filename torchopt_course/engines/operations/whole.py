"""The parameters of a group whose rule takes whole tensors: one by one, or those of one shape together.

The rule gets copies, so it may write to them; what it returns is written when nothing can fail any more. Of a
distributed tensor every process gathers the whole, computes the same, and writes the part that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bucket import GroupOptions
from ..local import LocalGroup, gathered, shared_out
from ..rule.messages import kind, say_where
from ..rule.parsed import Specialization
from ..rule.placeholders import RuleError
from ..rule.whole import WholeRule
from .one_by_one import Write
from .rest import Rest

States = Mapping[str, Tensor | None]


class _Mine(NamedTuple):
    """A parameter with its gradient and states, as they are."""

    param: Tensor
    grad: Tensor
    states: States

    @property
    def targets(self) -> dict[str, Tensor | None]:
        return {"p": self.param, **self.states}


class Whole(Rest):
    """All parameters of the group."""

    ENGINE = "torch, whole tensors"
    TAKES_ALL = True

    def _compute(
        self,
        local: LocalGroup,
        options: GroupOptions,
        positions: Sequence[int],
        specialization: Specialization,
        values: Mapping[str, Any],
        where: Callable[[int], str],
    ) -> Iterator[list[Write]]:
        assert isinstance(specialization.formula, WholeRule)
        stacked = specialization.formula.stacked
        together: dict[Hashable, dict[int, _Mine]] = {}
        for i in positions:
            grad, own = local.grads[i], local.state.get(local.params[i], {})
            assert grad is not None, "it is stepped"
            mine = _Mine(local.params[i], grad, {name: own.get(name) for name in specialization.states})
            together.setdefault(_alike(mine) if stacked else i, {})[i] = mine
        for several in together.values():
            try:
                new = (_stack if stacked else _alone)(specialization, [*several.values()], values)
                writes = [
                    _writes(specialization, mine.targets, results)
                    for mine, results in zip(several.values(), new, strict=True)
                ]
            except Exception as error:
                first = next(iter(several))
                others = f" and {len(several) - 1} of its shape" if len(several) > 1 else ""
                say_where(error, where(first) + others)
                raise
            yield from writes


def _alone(
    specialization: Specialization, several: Sequence[_Mine], values: Mapping[str, Any]
) -> list[list[Any]]:
    [mine] = several
    states = {name: None if state is None else _copy(state) for name, state in mine.states.items()}
    return [specialization.in_torch(_copy(mine.param), _copy(mine.grad), states, values)]


def _stack(
    specialization: Specialization, several: Sequence[_Mine], values: Mapping[str, Any]
) -> list[list[Any]]:
    """Several of one shape, along a new first dimension."""
    states: dict[str, Any] = {}
    for name, state in several[0].states.items():
        column = [mine.states[name] for mine in several]
        states[name] = (
            None if state is None else torch.stack([gathered(each) for each in column if each is not None])
        )
    new = specialization.in_torch(
        torch.stack([gathered(mine.param) for mine in several]),
        torch.stack([gathered(mine.grad) for mine in several]),
        states,
        values,
    )
    names = ("p", *specialization.states)
    rows: list[list[Any]] = [[] for _ in several]
    for name, value in zip(names, new, strict=True):
        if isinstance(value, Tensor) and value.shape[:1] != (len(several),):
            raise RuleError(
                f"{specialization.formula.owner}.rule returned a new {name!r} of shape {tuple(value.shape)}, "
                f"expected {len(several)} of them along the first dimension, for stacked = True"
            )
        for k, row in enumerate(rows):
            row.append(value[k] if isinstance(value, Tensor) else value)
    return rows


def _alike(mine: _Mine) -> Hashable:
    """What parameters must have in common to be stacked."""
    return tuple(
        None if tensor is None else (tensor.shape, tensor.dtype, tensor.device, tensor.layout)
        for tensor in (mine.param, mine.grad, *mine.states.values())
    )


def _copy(tensor: Tensor) -> Tensor:
    return gathered(tensor).clone()


def _writes(
    specialization: Specialization, targets: Mapping[str, Tensor | None], results: Sequence[Any]
) -> list[Write]:
    """What is to be written, if it fits."""
    owner = specialization.formula.owner
    writes = []
    for (name, target), value in zip(targets.items(), results, strict=True):
        if target is None:
            if value is not None:
                raise RuleError(
                    f"{owner}.rule returned {kind(value)} for {name!r}, which was None: expected None"
                )
            continue
        if type(value) in (int, float, bool):
            value = torch.tensor(value, device=target.device).expand(target.shape)
        if not isinstance(value, Tensor):
            raise RuleError(f"{owner}.rule returned {kind(value)} for {name!r}, expected a tensor")
        if value.shape != target.shape or value.device != target.device:
            raise RuleError(
                f"{owner}.rule returned a new {name!r} of shape {tuple(value.shape)} on {value.device}, "
                f"expected {tuple(target.shape)} on {target.device}"
            )
        if not torch.can_cast(value.dtype, target.dtype):
            raise RuleError(
                f"{owner}.rule returned a new {name!r} of {value.dtype}, which cannot become {target.dtype}"
            )
        writes.append(Write(target, shared_out(value, target)))
    return writes
