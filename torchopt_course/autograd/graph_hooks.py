"""Hooks of several values: ``torch.autograd.graph.register_multi_grad_hook`` of what a sweep has found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import graph
from torch.utils.hooks import RemovableHandle

from .hooks import Hook, Hooked
from .traced import Value


class _Pass(threading.local):
    """The sweep of this thread: the gradients that have come, for each hook of several values."""

    gradients: dict[_Several, list[Value]] | None = None


_this = _Pass()


class one_pass:
    """A backward pass: at its end hooks of several values are called with all of their gradients.

    Not one of contextlib's, which would take longer.
    """

    __slots__ = ("outer",)
    outer: dict[_Several, list[Value]] | None

    def __enter__(self) -> None:
        self.outer, _this.gradients = _this.gradients, {}

    def __exit__(self, kind: Any, *error: Any) -> None:
        try:
            if kind is None:
                for several, gradients in list((_this.gradients or {}).items()):
                    if not several.first_alone:
                        several.function(gradients)
        finally:
            _this.gradients = self.outer


class _Several:
    def __init__(self, count: int, function: Hook, first_alone: bool) -> None:
        self.count, self.function, self.first_alone = count, function, first_alone

    def of(self, number: int) -> Hook:
        """The hook of one of them."""

        def arrived(g: Value) -> None:
            if _this.gradients is None:
                raise RuntimeError(
                    "register_multi_grad_hook of variables and plain tensors together: a backward pass of "
                    "torch's alone has met one of the tensors; register a hook for these by themselves"
                )
            if self.first_alone and self not in _this.gradients:
                self.function(g)
            _this.gradients.setdefault(self, [None] * self.count)[number] = g

        return arrived


_by_torch = graph.register_multi_grad_hook


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Hook, *, mode: Any = "all") -> RemovableHandle:
    """As torch's, also of variables: ``fn`` gets their gradients (``mode="any"``: the first of them).

    Of plain tensors alone torch's own engine counts.
    """
    if mode not in ("all", "any") or not any(isinstance(x, Hooked) for x in tensors):
        with torch._C.DisableTorchFunction():  # it looks at torch's nodes, also within record()
            return _by_torch(tensors, fn, mode=mode)
    several = _Several(len(tensors), fn, mode == "any")
    return graph._MultiHandle(tuple(x.register_hook(several.of(i)) for i, x in enumerate(tensors)))


graph.register_multi_grad_hook = register_multi_grad_hook


_edge_by_torch = graph.get_gradient_edge


def get_gradient_edge(tensor: Tensor) -> graph.GradientEdge:
    """Torch's, of a tensor that torch's graph has.

    Raises:
        NotImplementedError: of a variable.
    """
    if isinstance(tensor, Hooked):
        raise NotImplementedError(
            "get_gradient_edge() of a variable, which torch's graph does not have: torch.autograd.grad and "
            "backward take the variable itself; detach() what else would keep its memory"
        )
    with torch._C.DisableTorchFunction():  # it takes a view of a leaf, also within record()
        return _edge_by_torch(tensor)


graph.get_gradient_edge = get_gradient_edge
