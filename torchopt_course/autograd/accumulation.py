"""Leaves to whose ``.grad`` torch's own engine adds what a sweep has found, because more hangs on it.

``DistributedDataParallel`` averages as soon as the engine has added to all parameters. And who has taken a
leaf's AccumulateGrad node (``p.expand_as(p).grad_fn.next_functions[0][0]``) may have registered hooks on it.
The hook of ``register_multi_grad_hook`` must be called within one call of the engine. The engine is given the
gradients that it would have computed, so none of them can tell the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle

from .distributed import averaged, is_averaged
from .traced import Traced, Value

# Of a tensor without, by its id: how many hooks there had been in this process when its node was looked at. A
# hook cannot be registered without a handle, and torch counts those.
_looked_at: dict[int, int] = {}
_handles_of_mine = 0  # by looking
MOST = 10_000


def is_added_by_torch(tensor: Tensor | None) -> bool:
    """Whether the gradient of this leaf goes to torch's engine; asked in each backward pass."""
    if averaged and is_averaged(tensor):
        return tensor.requires_grad  # type: ignore[union-attr] # it may have been frozen since
    hooks_so_far = RemovableHandle.next_id - _handles_of_mine
    if _looked_at.get(id(tensor)) == hooks_so_far:
        return False
    if tensor is None or isinstance(tensor, Traced) or not tensor.requires_grad:
        return False
    hooks = tensor._backward_hooks
    if (hooks and any(map(_counts_several, hooks.values()))) or _look(tensor):
        return True
    if len(_looked_at) > MOST:
        _looked_at.clear()
    _looked_at[id(tensor)] = hooks_so_far
    return False


def _counts_several(hook: Any) -> bool:
    """That of ``torch.autograd.graph.register_multi_grad_hook`` counts within one call of the engine."""
    return getattr(hook, "__globals__", None) is vars(torch.autograd.graph)


def _look(tensor: Tensor) -> bool:
    """Whether the tensor's AccumulateGrad node has hooks: torch shows them to who registers another one."""
    global _handles_of_mine
    with torch._C.DisableTorchFunction():
        node: Any = get_gradient_edge(tensor).node
    found = False
    for register in (node.register_hook, node.register_prehook):
        handle = register(_nothing)
        _handles_of_mine += 1
        found = found or len(handle.hooks_dict_ref()) > 1
        handle.remove()
    return found


def _nothing(*_: object) -> None:
    pass


def let_torch_add(gradients: Mapping[Tensor, Value]) -> None:
    """Give torch's engine what it would have computed: it calls the hooks and adds."""
    for tensor, g in gradients.items():
        if isinstance(g, Traced):
            why = "is DDP's" if is_averaged(tensor) else "has hooks that the engine calls"
            raise NotImplementedError(
                f"backward(create_graph=True) to a leaf {tuple(tensor.shape)} that {why}: torch's engine has "
                "to add this gradient, and cannot add a variable"
            )
    with torch._C.DisableTorchFunction():
        torch.autograd.backward([get_gradient_edge(x) for x in gradients], list(gradients.values()))
