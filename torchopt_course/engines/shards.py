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
        params, grads, state, wrappers = [], [], {}, []
        for param, grad in zip(view.params, view.grads, strict=True):
            own = view.state.get(param)
            if not is_distributed({type(param)}):
                shard, shard_states = param, own
            else:
                shard, shard_states = _shard("the parameter", param, param), None
                grad = None if grad is None else _shard("its gradient", grad, param)
                if own is not None:
                    fresh = {
                        n: v if n == "step" else _shard(f"state {n!r}", v, param) for n, v in own.items()
                    }
                    shard_states = self._states.setdefault(shard, {})
                    if list(map(id, fresh.values())) != list(map(id, shard_states.values())):
                        shard_states.clear()
                        shard_states.update(fresh)
                    wrappers += [param, *(value for name, value in own.items() if name != "step")]
            params.append(shard)
            grads.append(grad)
            if shard_states is not None:
                state[shard] = shard_states
        return View(params, grads, state, set(map(type, grads)), tuple(wrappers))


def _shard(label: str, tensor: Any, param: Any) -> Any:
    """The local part of a tensor, spread over the processes as the parameter is."""
    if not isinstance(tensor, Tensor):
        return tensor
    if not is_distributed({type(tensor)}):
        raise RuntimeError(
            f"{label} is a plain tensor of shape {tuple(tensor.shape)}, but the parameter is a DTensor with "
            f"the placements {param.placements}; load checkpoints with torch.distributed.checkpoint"
        )
    distributed: Any = tensor
    with torch.no_grad():
        if distributed.placements != param.placements:
            distributed = distributed.redistribute(placements=param.placements)
        return distributed.to_local()
