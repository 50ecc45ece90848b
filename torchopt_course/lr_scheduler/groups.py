"""The plumbing between a schedule, its optimizer and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any, SupportsFloat, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

Group: TypeAlias = dict[str, Any]
# The learning rate, and the momentum or β₁ if there is one.
Rates: TypeAlias = tuple[float, float | None]


def set_lr(group: Group, lr: SupportsFloat) -> float | Tensor:
    """Set the group's learning rate, in place where it is a tensor: a captured graph may read it there.

    Returns:
        the rate as it is now; of a tensor, a copy.
    """
    current = group["lr"]
    if isinstance(current, Tensor):
        return current.fill_(float(lr)).clone()
    group["lr"] = number = float(lr)
    return number


def set_momentum(optimizer: Optimizer, group: Group, momentum: SupportsFloat) -> None:
    """Set the group's β₁ if it has betas, and its momentum otherwise."""
    momentum = float(momentum)
    if "betas" in group:
        betas = group["betas"]
        if isinstance(betas[0], Tensor):
            betas[0].fill_(momentum)
        else:
            group["betas"] = (momentum, *betas[1:])
    else:
        if momentum and not group["momentum"]:
            complete_velocities(optimizer, group)
        group["momentum"] = momentum


def complete_velocities(optimizer: Optimizer, group: Group) -> None:
    """Give RMSprop's parameters the velocity that they lack if they were stepped without momentum.

    With momentum it uses the velocity in every step, torch's without a look whether it is there.
    """
    for param in group["params"]:
        state = optimizer.state.get(param, {})
        if "square_avg" in state and "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)


def rates_of(group: Group) -> Rates:
    momentum = group["betas"][0] if "betas" in group else group.get("momentum")
    return float(group["lr"]), None if momentum is None else float(momentum)


def lrs_of(groups: Sequence[Group]) -> list[float | Tensor]:
    """The learning rates as they are now; tensors are copied, for they will change."""
    return [lr.clone() if isinstance(lr := group["lr"], Tensor) else float(lr) for group in groups]


def separate_tensors(groups: Sequence[Group]) -> None:
    """Give each group learning rates and betas of its own where several share a tensor.

    ``Adam(groups, lr=torch.tensor(0.1))`` puts the same tensor into all groups. Written in place for one, it
    would change for the others too.
    """
    seen: set[int] = set()

    def own(value: Tensor) -> Tensor:
        value = value.clone() if id(value) in seen else value
        seen.add(id(value))
        return value

    for group in groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = own(group["lr"])
        betas = group.get("betas", ())
        if any(isinstance(beta, Tensor) for beta in betas):
            group["betas"] = tuple(own(beta) if isinstance(beta, Tensor) else beta for beta in betas)


def one_for_each_group(name: str, value: Any, groups: Sequence[Group]) -> list[float]:
    """One number for each group.

    Raises:
        ValueError: a list of another length than there are groups.
        TypeError: something that is no number.
    """
    if is_several(value):
        if len(value) != len(groups):
            raise ValueError(
                f"{name} must have the same length as optimizer.param_groups. "
                f"{name} has {len(value)} values, param_groups has {len(groups)}."
            )
        values = list(value)
    else:
        values = [value] * len(groups)
    for one in values:
        if isinstance(one, str) or not hasattr(one, "__float__"):
            raise TypeError(f"{name} must be a number or a list of numbers, got {one!r}")
    return [float(one) for one in values]


def plain(value: Any) -> Any:
    """A number as Python's own int or float; what is none is returned as it is.

    ``np.int64(29)``, ``np.float64(0.1)`` or a tensor of one calculate alike, but whatever is made of them is
    of their kind, and a checkpoint with numpy's numbers cannot be loaded with ``weights_only=True``.
    """
    if type(value) in (int, float, bool) or is_several(value):
        return value
    if hasattr(value, "item"):
        return value.item()
    return float(value) if isinstance(value, Number) and hasattr(value, "__float__") else value


def is_several(value: Any) -> bool:
    """A list or an array of numbers, and not a single one."""
    return hasattr(value, "__len__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state whose lists and numbers are its own: what is done to one side must not change the other."""

    def own(value: Any) -> Any:
        if isinstance(value, list):
            return [own(item) for item in value]
        return value if isinstance(value, Tensor) else plain(value)

    return {name: own(value) for name, value in state.items()}
