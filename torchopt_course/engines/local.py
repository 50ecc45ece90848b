"""What the engines see of one parameter group: its tensors, and of distributed ones this process's shards.

Every element is updated by itself, so a step of a ``DTensor`` (FSDP2, tensor parallel) is the same step of
each process's local shard, without communication. The states stay ``DTensor``, for distributed checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .counted import Counted
from .storage import Chance

State = dict[str, Any]


class LocalGroup(NamedTuple):
    """A parameter group as the engines see it.

    Attributes:
        params, grads: plain tensors, in the group's order.
        state: for each of ``params`` that has states, its states by name.
        whole_grads: the gradients as they came, of distributed parameters whole ones.
        wrappers: distributed tensors whose shards a step writes to.
        chance: what random bits are a function of, where results are rounded by chance.
        counted: the coefficients of any step, where they can be read and a device counts for one bucket.
        originals: where some are distributed, the group's own parameters and its distributed states: the
            shards of one and the same ``DTensor`` are new objects each time.
    """

    params: list[Tensor]
    grads: list[Tensor | None]
    state: Mapping[Tensor, State]
    whole_grads: list[Tensor | None]
    wrappers: tuple[Tensor, ...] = ()
    originals: tuple[list[Tensor], list[Tensor]] | None = None
    chance: Chance | None = None
    counted: Counted | None = None


def is_distributed(kinds: set[type]) -> bool:
    """Whether one of the types is torch's ``DTensor``; nobody has one who has not imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(issubclass(kind, module.DTensor) for kind in kinds)


def local_group(
    params: list[Tensor], grads: list[Tensor | None], state: Mapping[Tensor, State], *, in_parts: bool
) -> LocalGroup:
    """A group as the engines see it: with the shard that this process holds in the place of each ``DTensor``.

    Args:
        in_parts: whether shards may be updated by themselves.

    Raises:
        RuntimeError: a gradient or a state is not distributed although its parameter is.
    """
    if in_parts and is_distributed({*map(type, params)}):
        return _shards(params, grads, state)
    return LocalGroup(params, list(grads), state, grads)


def _shards(
    whole_params: list[Tensor], whole_grads: list[Tensor | None], whole_state: Mapping[Tensor, State]
) -> LocalGroup:
    params: list[Tensor] = []
    grads: list[Tensor | None] = []
    state: dict[Tensor, State] = {}
    wrappers: list[Tensor] = []
    distributed_states: list[Tensor] = []
    for param, grad in zip(whole_params, whole_grads, strict=True):
        own = whole_state.get(param)
        if is_distributed({type(param)}):
            local = _local(param)
            names = [n for n, value in (own or {}).items() if n != "step" and isinstance(value, Tensor)]
            if own is not None:
                # States placed otherwise, by a checkpoint for instance, are placed anew once and for all.
                own.update({name: _placed(f"state {name!r}", own[name], param) for name in names})
                distributed_states += [own[name] for name in names]
                own = {name: _local(own[name]) if name in names else own[name] for name in own}
            if grad is not None:
                grad = _local(_placed("its gradient", grad, param))
                wrappers += [param, *distributed_states[len(distributed_states) - len(names) :]]
        else:
            local = param
        params.append(local)
        grads.append(grad)
        if own is not None:
            state[local] = own
    originals = whole_params, distributed_states
    return LocalGroup(params, grads, state, whole_grads, tuple(wrappers), originals)


def _placed(label: str, tensor: Any, param: Any) -> Any:
    """A distributed tensor spread over the processes as its parameter is."""
    if not is_distributed({type(tensor)}):
        raise RuntimeError(
            f"{label} is a plain tensor of shape {tuple(tensor.shape)}, but the parameter is a DTensor with "
            f"the placements {param.placements}; load checkpoints with torch.distributed.checkpoint"
        )
    with torch.no_grad():
        return placed_as(param, tensor)


def placed_as(target: Any, tensor: Any) -> Any:
    """A tensor, spread over the processes as another one is, if both are distributed."""
    both_are = is_distributed({type(target)}) and is_distributed({type(tensor)})
    if not both_are or tensor.placements == target.placements:
        return tensor
    return tensor.redistribute(placements=target.placements)


def _local(tensor: Any) -> Tensor:
    """The part of a distributed tensor that this process holds."""
    with torch.no_grad():
        local: Tensor = tensor.to_local()
    return local


def gathered(tensor: Tensor) -> Tensor:
    """A tensor as one process alone would have it: of a ``DTensor``, the whole."""
    if not is_distributed({type(tensor)}):
        return tensor
    whole: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def shared_out(whole: Tensor, target: Any) -> Tensor:
    """A whole tensor, the same on each process, distributed as another one is; without communication."""
    if not is_distributed({type(target)}):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
