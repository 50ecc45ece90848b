"""Sees when an optimizer is stepped, wherever in somebody else's code that happens."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class UpdateCounter:
    """Within a ``with`` block, ``count`` is the number of steps that the optimizer has made.

    Counts also the steps of an optimizer that wraps this one or is wrapped by it: it has the same parameter
    groups. So the hooks are those of all optimizers, for a wrapper may never call its own.

    Args:
        optimizer: whose steps to count.
        before_first: called right before the first one, until one has been made.
    """

    def __init__(self, optimizer: Optimizer, before_first: Callable[[], object]) -> None:
        self.optimizer = optimizer
        self.before_first = before_first
        self.count = 0

    def __enter__(self) -> UpdateCounter:
        self._hooks = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, stepped: Optimizer, *call: Any) -> None:
        if self.count == 0 and self._is_ours(stepped):
            self.before_first()

    def _after(self, stepped: Optimizer, *call: Any) -> None:
        if self._is_ours(stepped):
            self.count += 1

    def _is_ours(self, stepped: Optimizer) -> bool:
        if stepped is self.optimizer:
            return True
        ours = {id(group) for group in self.optimizer.param_groups}
        return any(id(group) in ours for group in stepped.param_groups)
