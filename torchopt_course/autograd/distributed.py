"""``DistributedDataParallel`` and ``fully_shard`` inside of ``record``.

DDP averages gradients over processes as soon as torch's engine has added to the ``.grad`` of all parameters.
So what our sweep has found is handed to torch's engine, which adds it; DDP cannot tell the difference.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.parallel import DistributedDataParallel

from .traced import Traced, Value, recording

# The parameters of all that was called inside of a block, by their ids, for as long as they live.
AVERAGED: dict[int, weakref.ref[Tensor]] = {}

_forward = DistributedDataParallel.forward


@functools.wraps(_forward)
def forward(self: Any, *inputs: Any, **kwargs: Any) -> Any:
    if recording.blocks and torch.is_grad_enabled():
        for option in ("find_unused_parameters", "static_graph", "mixed_precision"):
            if getattr(self, option):
                raise NotImplementedError(
                    f"DistributedDataParallel({option}=...) inside of record(): it follows torch's own graph"
                )
        for parameter in self._module_parameters:
            if id(parameter) not in AVERAGED:
                AVERAGED[id(parameter)] = weakref.ref(parameter, functools.partial(_forget, id(parameter)))
    return _forward(self, *inputs, **kwargs)  # type: ignore[no-untyped-call]


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    if AVERAGED.get(key) is dead:  # or another tensor has the id by now
        del AVERAGED[key]


DistributedDataParallel.forward = forward  # type: ignore[method-assign]


def refuse_sharded(module: Any) -> None:
    """FSDP gathers and scatters within torch's own backward pass, which this autograd replaces."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(module, (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)):
        raise NotImplementedError(f"{type(module).__name__} inside of record(): {SHARDED}")


SHARDED = "sharded parameters are gathered within torch's own backward pass, so train them by torch.autograd"


def is_averaged(tensor: Tensor | None) -> bool:
    known = AVERAGED.get(id(tensor))
    return known is not None and known() is tensor


def let_torch_add(gradients: Mapping[Tensor, Value]) -> None:
    """Give torch's engine what it would have computed: it calls the hooks and adds, and DDP goes on."""
    if any(isinstance(g, Traced) for g in gradients.values()):
        raise NotImplementedError("backward(create_graph=True) of parameters of a DistributedDataParallel")
    with torch._C.DisableTorchFunction():
        torch.autograd.backward([get_gradient_edge(x) for x in gradients], list(gradients.values()))
