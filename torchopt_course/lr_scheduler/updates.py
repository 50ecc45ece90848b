"""Sees when an optimizer is stepped, wherever in somebody else's code that happens."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class UpdateCounter:
    """Within a ``with`` block, ``count`` is the number of steps that the optimizer has made.

    Counts also the steps of an optimizer that wraps this one or is wrapped by it: it has the same parameter
    groups. So the hooks are those of all optimizers, for a wrapper may never call its own.

    A compiled step calls no hook of ours, or it would be compiled anew for each count. As long as no hook has
    been called, a change of the parameters seen by :meth:`look` counts as a step.

    Args:
        optimizer: whose steps to count.
        before_first: called right before the first one, until one has been made.
    """

    def __init__(self, optimizer: Optimizer, before_first: Callable[[], object]) -> None:
        self.optimizer = optimizer
        self.before_first = before_first
        self.count = 0
        self._was_hooked = False
        self._versions = self._versions_now()

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

    def look(self) -> None:
        """See whether there were steps of which no hook has told."""
        if self._was_hooked:
            return
        versions = self._versions_now()
        self.count += versions != self._versions
        self._versions = versions

    def _versions_now(self) -> int:
        groups = self.optimizer.param_groups
        return sum(param._version for group in groups for param in group["params"])

    def _before(self, stepped: Optimizer, *call: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self.count == 0 and self._is_ours(stepped):
            self.before_first()

    def _after(self, stepped: Optimizer, *call: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if self._is_ours(stepped):
            self._was_hooked = True
            self.count += 1

    def _is_ours(self, stepped: Optimizer) -> bool:
        if stepped is self.optimizer:
            return True
        ours = {id(group) for group in self.optimizer.param_groups}
        return any(id(group) in ours for group in stepped.param_groups)
