"""The plumbing between a schedule, its optimizer and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

Group: TypeAlias = dict[str, Any]
# The learning rate, and the momentum or β₁ if there is one.
Rates: TypeAlias = tuple[float, float | None]


def set_lr(group: Group, lr: float | Tensor) -> float | Tensor:
    """Set the group's learning rate, in place where it is a tensor: a captured graph may read it there.

    Returns:
        the rate as it is now; of a tensor, a copy.
    """
    current = group["lr"]
    if isinstance(current, Tensor):
        return current.fill_(float(lr)).clone()
    group["lr"] = lr
    return lr


def set_momentum(optimizer: Optimizer, group: Group, momentum: float) -> None:
    """Set the group's β₁ if it has betas, and its momentum otherwise."""
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
    return [lr.clone() if isinstance(lr := group["lr"], Tensor) else lr for group in groups]


def separate_tensors(groups: Sequence[Group]) -> None:
    """Give each group learning rates and betas of its own where several share a tensor.

    ``Adam(groups, lr=torch.tensor(0.1))`` puts the same tensor into all groups. Written in place for one, it
    would change for the others too.
    """
    seen: set[int] = set()

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.clone() if id(value) in seen else value
        seen.add(id(value))
        return value

    for group in groups:
        group["lr"] = own(group["lr"])
        if "betas" in group:
            group["betas"] = tuple(own(beta) for beta in group["betas"])


def one_for_each_group(name: str, value: Any, groups: Sequence[Group]) -> list[float]:
    """One number for each group.

    Raises:
        ValueError: a list of another length than there are groups.
        TypeError: something that is no number.
    """
    if isinstance(value, list | tuple):
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


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state whose lists are its own: what is done to one side must not change the other."""
    return {name: list(value) if isinstance(value, list) else value for name, value in state.items()}
