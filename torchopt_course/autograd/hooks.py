"""What users have of a gradient that is known: ``grad``, and hooks, which they want called with it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .distributed import SHARDED
from .traced import Value

Hook = Callable[[Any], Any]

# Those of operations and leaves, called in each sweep with the gradient of their value.
hooks: weakref.WeakKeyDictionary[Any, OrderedDict[int, Hook]] = weakref.WeakKeyDictionary()

RETAINING = -1  # among the hooks of a result that of retain_grad(), which comes last


def hooked(g: Value, functions: Mapping[int, Hook] | None) -> Value:
    """The gradient after these hooks: each may give another one, or change it. What they keep is theirs."""
    if not functions:
        return g
    for function in list(functions.values()):  # one may remove itself
        changed = function(g)
        if changed is not None:
            name = getattr(function, "__name__", str(function))
            if not isinstance(changed, Tensor):
                raise TypeError(f"expected a tensor, but hook {name!r} returned {type(changed).__name__!r}")
            if changed.shape != g.shape or changed.dtype != g.dtype:
                raise RuntimeError(
                    f"hook {name!r} made of a gradient {g.dtype} {tuple(g.shape)} one that is "
                    f"{changed.dtype} {tuple(changed.shape)}"
                )
            g = changed
    return g.clone()


def move_retaining(before: Any, after: Any) -> None:
    """After an operation in place it is the new value whose gradient ``retain_grad()`` asked for."""
    functions = None if before is None else hooks.get(before)
    if functions and RETAINING in functions:
        hooks.setdefault(after, OrderedDict())[RETAINING] = functions.pop(RETAINING)


class Hooked:
    """The methods of a variable that hold its gradient and register hooks."""

    node: Any
    is_leaf: bool
    requires_grad: Any
    dtype: Any
    shape: Any
    _grad: Value
    _post_accumulate_grad_hooks: Any = None  # None, or functions by number

    @property
    def grad(self) -> Value:
        return self._grad

    @grad.setter
    def grad(self, value: Value) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value)}")
            if value is self:
                raise RuntimeError("can't assign Variable as its own grad")
            if value.dtype != self.dtype:
                raise RuntimeError(f"assigned grad is {value.dtype}, but the variable {self.dtype}")
            if value.shape != self.shape:
                raise RuntimeError(
                    f"assigned grad has shape {tuple(value.shape)}, but the variable has {tuple(self.shape)}"
                )
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(gradient)`` in each backward pass; what it returns, if not None, replaces it."""
        if (getattr(hook, "__module__", None) or "").startswith("torch.distributed.fsdp"):
            raise NotImplementedError(f"fully_shard() with variables: {SHARDED}")
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        functions = hooks.setdefault(self.node, OrderedDict())
        handle = _added(functions, hook)
        if RETAINING in functions:
            functions.move_to_end(RETAINING)
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        """Call ``hook(variable)`` whenever ``backward()`` has added to the ``grad`` of this leaf."""
        if not self.is_leaf:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._post_accumulate_grad_hooks is None:
            self._post_accumulate_grad_hooks = OrderedDict()
        return _added(self._post_accumulate_grad_hooks, hook)

    def retain_grad(self) -> None:
        """Let ``backward()`` leave the gradient in ``grad`` as for a leaf."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if not self.is_leaf:
            mine = weakref.ref(self)

            def keep(g: Value) -> None:
                variable = mine()
                if variable is not None:
                    variable._grad = g if variable._grad is None else variable._grad + g

            hooks.setdefault(self.node, OrderedDict())[RETAINING] = keep

    if not TYPE_CHECKING:  # of a tensor it is an attribute that can be set

        @property
        def retains_grad(self) -> bool:
            """Whether :meth:`retain_grad` was asked for."""
            return not self.is_leaf and RETAINING in hooks.get(self.node, ())


def _added(functions: OrderedDict[int, Hook], hook: Hook) -> RemovableHandle:
    handle = RemovableHandle(functions)
    functions[handle.id] = hook
    return handle
