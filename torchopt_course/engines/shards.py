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

State = dict[str, Any]
# What gradients are, most often.
ORDINARY = frozenset({Tensor, type(None)})


class View(NamedTuple):
    """A parameter group as the engines see it.

    Attributes:
        params, grads: plain tensors, in the group's order.
        state: for each of ``params`` that has states, its states by name.
        kinds: the types in ``grads``.
        wrappers: distributed tensors whose shards a step writes to.
    """

    params: list[Tensor]
    grads: list[Tensor | None]
    state: Mapping[Tensor, State]
    kinds: set[type]
    wrappers: tuple[Tensor, ...] = ()


def is_distributed(kinds: set[type]) -> bool:
    """Whether one of the types is torch's ``DTensor``; nobody has one who has not imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(issubclass(kind, module.DTensor) for kind in kinds)


class Shards:
    """The local shards of one parameter group; the same objects as long as the tensors are the same."""

    def __init__(self) -> None:
        self._states: dict[Tensor, State] = {}

    def view(self, view: View) -> View:
        """The same group with every ``DTensor`` replaced by the shard that this process holds.

        Raises:
            RuntimeError: a gradient or a state is not distributed although its parameter is.
        """
        params, grads, state = [], [], {}
        wrappers: list[Tensor] = []
        for param, grad in zip(view.params, view.grads, strict=True):
            own = view.state.get(param)
            if not is_distributed({type(param)}):
                shard, shard_states = param, own
            else:
                shard, shard_states = _local(param), None
                if grad is not None:
                    grad = _local(_placed("its gradient", grad, param))
                    wrappers.append(param)
                if own is not None:
                    # States placed otherwise, by a checkpoint for instance, are placed anew once and for all.
                    names = [name for name in own if name != "step" and isinstance(own[name], Tensor)]
                    own.update({name: _placed(f"state {name!r}", own[name], param) for name in names})
                    wrappers += [own[name] for name in names]
                    fresh = {n: _local(value) if n in names else value for n, value in own.items()}
                    shard_states = self._states.setdefault(shard, {})
                    if list(map(id, fresh.values())) != list(map(id, shard_states.values())):
                        shard_states.clear()
                        shard_states.update(fresh)
            params.append(shard)
            grads.append(grad)
            if shard_states is not None:
                state[shard] = shard_states
        return View(params, grads, state, set(map(type, grads)), tuple(wrappers))


def _placed(label: str, tensor: Any, param: Any) -> Any:
    """A distributed tensor spread over the processes as its parameter is."""
    if not is_distributed({type(tensor)}):
        raise RuntimeError(
            f"{label} is a plain tensor of shape {tuple(tensor.shape)}, but the parameter is a DTensor with "
            f"the placements {param.placements}; load checkpoints with torch.distributed.checkpoint"
        )
    if tensor.placements == param.placements:
        return tensor
    with torch.no_grad():
        return tensor.redistribute(placements=param.placements)


def _local(tensor: Any) -> Tensor:
    """The part of a distributed tensor that this process holds."""
    with torch.no_grad():
        local: Tensor = tensor.to_local()
    return local
