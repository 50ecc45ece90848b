"""``torch.autograd.graph.saved_tensors_hooks``: what is saved for a derivative does not go through them here.

They may change numbers (a quantizer), or count on being called, so they are refused. That costs nothing while
there are none: :data:`CLOSED_BY_HOOKS` are levels that look for hooks whenever they are closed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import graph

from .traced import Level, recording

CLOSED_BY_HOOKS: list[Level] = []
_entered: list[graph.saved_tensors_hooks] = []  # in any thread

# Where torch's own are, which change no number. A user may take another function of torch's, such as F.relu.
MOVING = ("torch.autograd.graph", "torch.utils.checkpoint", "torch.distributed.", "torch._functorch.")


def refuse_packing() -> None:
    """Raise if this thread is within such hooks; those of checkpoint and save_on_cpu change no number."""
    packing = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if packing and changes(packing[0]):
        raise not_packed()


def changes(pack: Any) -> bool:
    return not (getattr(pack, "__module__", None) or "").startswith(MOVING)


def not_packed() -> NotImplementedError:
    return NotImplementedError(
        "torch.autograd.graph.saved_tensors_hooks with variables or record(): what this autograd saves for "
        "its derivatives is neither packed nor unpacked; use them where torch alone computes"
    )


_enter, _exit = graph.saved_tensors_hooks.__enter__, graph.saved_tensors_hooks.__exit__


def enter(hooks: graph.saved_tensors_hooks) -> None:
    if changes(hooks.pack_hook):
        if recording.blocks or recording.depth:
            raise not_packed()
        _entered.append(hooks)
        _open_or_close()
    _enter(hooks)


def leave(hooks: graph.saved_tensors_hooks, *error: object) -> None:
    _exit(hooks, *error)
    if changes(hooks.pack_hook):
        _entered.remove(hooks)
        _open_or_close()


def _open_or_close() -> None:
    for level in CLOSED_BY_HOOKS:
        level.open = not _entered


graph.saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
graph.saved_tensors_hooks.__exit__ = leave  # type: ignore[method-assign]
