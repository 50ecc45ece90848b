"""``DistributedDataParallel`` and sharded parameters within ``record``.

DDP averages gradients over processes as soon as torch's engine has added to the ``.grad`` of all parameters.
So what our sweep has found for them is handed to that engine (see :mod:`.accumulation`).
"""

from __future__ import annotations

import functools
import sys
import weakref
from typing import Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

# The parameters of all whose forward pass has met a leaf, by their ids, for as long as they live.
averaged: dict[int, weakref.ref[Tensor]] = {}


def meet(leaf: Tensor) -> None:
    """A leaf is computed with: within the forward pass of a DDP module, so its parameters are averaged."""
    if "torch.distributed.fsdp" in sys.modules and getattr(leaf, "_is_flat_param", False):
        raise NotImplementedError(f"FullyShardedDataParallel inside of record(): {SHARDED}")
    module = DistributedDataParallel._active_ddp_module
    if module is None:
        return
    for option in ("find_unused_parameters", "static_graph", "mixed_precision"):
        if getattr(module, option):
            raise NotImplementedError(
                f"DistributedDataParallel({option}=...) inside of record(): it follows torch's own graph"
            )
    if is_averaged(leaf):  # and so are the others: once for all of them
        return
    for parameter in module._module_parameters:
        key = id(parameter)
        if key not in averaged:
            averaged[key] = weakref.ref(parameter, functools.partial(_forget, key))


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    if averaged.get(key) is dead:  # or another tensor has the id by now
        del averaged[key]


def is_averaged(tensor: Tensor | None) -> bool:
    known = averaged.get(id(tensor))
    return known is not None and known() is tensor


def refuse_sharded(module: Any) -> None:
    """FSDP gathers and scatters within torch's own backward pass, which this autograd replaces."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(module, (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)):
        raise NotImplementedError(f"{type(module).__name__} inside of record(): {SHARDED}")


SHARDED = "sharded parameters are gathered within torch's own backward pass, so train them by torch.autograd"
