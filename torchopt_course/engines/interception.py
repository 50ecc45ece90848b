"""What follows tensor operations: a kernel that writes through addresses would go past it unseen."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def interceptor() -> str | None:
    """What looks at each operation at present, and so must be given operations; ``None`` if nothing does.

    Dispatch modes (``make_fx``, fake tensors, ``torch.export``, counters of operations), the transforms of
    ``torch.func`` (``vmap``, ``grad``, ``jvp``, ``functionalize``) and forward-mode differentiation.
    """
    if torch._C._len_torch_dispatch_stack():
        mode = torch.utils._python_dispatch._get_current_dispatch_mode()
        return f"the dispatch mode {type(mode).__name__} follows each operation"
    if torch._C._functorch.maybe_current_level() is not None:
        return "a transform of torch.func follows each operation"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation follows each operation"
    return None
