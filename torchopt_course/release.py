"""Stepping during the backward pass: each gradient is used as soon as it is there, and freed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from .engines.storage import Chance
from .stepped import NO_SCALER, SteppedOptimizer

# torch's wrappers that change gradients after they were accumulated.
_REDUCERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel")


_SEES_SEVERAL = (
    "{}.rule makes numbers of several tensors (over='group' or 'all'), but released gradients are never "
    "there together: call optimizer.step() for it"
)


class ReleasedGradients:
    """The handle of :func:`release_gradients`."""

    def __init__(self, optimizer: SteppedOptimizer) -> None:
        self._optimizer = optimizer
        self._handles: list[RemovableHandle] = []
        self._accumulates = False
        self._backward_pass = -1
        self._supported_scaling = optimizer._step_supports_amp_scaling

    def remove(self) -> None:
        """Go back to gradients that wait for ``optimizer.step()``."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._optimizer.__dict__.pop("_released", None)
        self._optimizer._step_supports_amp_scaling = self._supported_scaling

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Within, backward passes add up gradients as usual; the next one outside steps with their sum."""
        before, self._accumulates = self._accumulates, True
        try:
            yield
        finally:
            self._accumulates = before

    def _use(self, single: _Single, param: Tensor) -> None:
        if self._accumulates:
            return
        self._optimizer._refuse_while_paused()
        # Where chance rounds, bits depend on how many steps were taken: one for each backward pass.
        backward_pass = torch._C._current_graph_task_id()
        if backward_pass != self._backward_pass:
            self._backward_pass = backward_pass
            for group in self._optimizer.param_groups:
                if "rounding_step" in group:
                    group["rounding_step"] += 1
        single.step(param)


def release_gradients(model: Module, optimizer: SteppedOptimizer) -> ReleasedGradients:
    """Step each parameter in the backward pass, when its gradient is complete, and free that gradient.

    There are never all gradients at once, which saves up to the memory of all parameters. ``loss.backward()``
    is the step; ``optimizer.step()`` and ``zero_grad()`` find nothing left to do and may stay where they are,
    for schedulers and hooks::

        released = release_gradients(model, optimizer)
        for inputs, targets in loader:
            loss_of(model(inputs), targets).backward()
            optimizer.step()  # for schedulers, which want to see it called
            scheduler.step()
        released.remove()

    For several backward passes a step, ``with released.accumulate():`` around all of them but the last.
    Options (``lr``, ...) are read at each backward pass, states and checkpoints are the optimizer's as ever.

    Not with what needs all gradients before the first is used: clipping by their norm (``clip_grad_norm_``
    after ``backward()`` finds no gradients and returns 0), rules with numbers over several tensors,
    ``GradScaler``, data parallel wrappers. What
    changes one gradient at a time, as ``param.register_hook`` with a ``clamp``, works.

    Args:
        model: its parameters that require gradients, as far as they are the optimizer's, are released.
        optimizer: one of this package's, :class:`Mixed` too, or a subclass of :class:`ElementwiseOptimizer`
            or :class:`TensorOptimizer`.

    Returns:
        A handle that removes the hooks, and switches to accumulation.

    Raises:
        TypeError: not a module, or not such an optimizer.
        ValueError: the optimizer has a parameter that is not the model's, or none of its parameters.
        RuntimeError: a rule with numbers over several tensors, ``differentiable=True``, a ``GradScaler`` at
            work (it is refused later as well), data parallel, a ``step`` of the class's own or a hook
            before it, or released already.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(optimizer, SteppedOptimizer):
        raise TypeError(f"optimizer must be one of torchopt_course, got {type(optimizer).__name__}")
    _refuse_impossible(model, optimizer)
    own = {id(param) for param in model.parameters()}
    released = ReleasedGradients(optimizer)
    places: dict[int, tuple[int, int]] = {}
    for i, group in enumerate(optimizer.param_groups):
        for position, param in enumerate(group["params"]):
            if id(param) not in own:
                raise ValueError(f"{optimizer._where(i, position)} of the optimizer is not the model's")
            if id(param) in places:
                raise ValueError(f"{optimizer._where(i, position)} stands in the groups twice")
            places[id(param)] = i, position
    if not places:
        raise ValueError("the optimizer has no parameters")
    for i, group in enumerate(optimizer.param_groups):
        for position, param in enumerate(group["params"]):
            if param.requires_grad:
                use = partial(released._use, _Single(optimizer, i, position))
                released._handles.append(param.register_post_accumulate_grad_hook(use))
    optimizer.__dict__["_released"] = released
    # So that a GradScaler asks the optimizer, which refuses it.
    optimizer._step_supports_amp_scaling = True
    return released


def _refuse_impossible(model: Module, optimizer: SteppedOptimizer) -> None:
    if "_released" in optimizer.__dict__:
        raise RuntimeError("the optimizer's gradients are released already: remove() that first")
    if any(group["differentiable"] for group in optimizer.param_groups):
        raise RuntimeError("differentiable=True needs gradients that stay")
    if "found_inf" in optimizer.__dict__ or "grad_scale" in optimizer.__dict__:
        raise RuntimeError(NO_SCALER)
    for i in range(len(optimizer.param_groups)):
        part = optimizer._part(i)
        if part._parsed_rule.sees_several:
            raise RuntimeError(_SEES_SEVERAL.format(type(part).__name__))
    if type(optimizer).step is not SteppedOptimizer.step:
        raise RuntimeError(
            f"{type(optimizer).__name__}.step is a method of its own, which would be passed by"
        )
    if optimizer._optimizer_step_pre_hooks:
        raise RuntimeError("the optimizer has a hook before its step, which would find no gradients")
    if optimizer._skips_nonfinite:
        raise RuntimeError("skip_nonfinite must see all gradients before the first is used")
    for module in model.modules():
        if type(module).__name__ in _REDUCERS:
            raise RuntimeError(
                f"{type(module).__name__} changes gradients after the backward pass has left them, "
                "and they would be used and gone by then"
            )


class _Single:
    """One parameter of an optimizer, stepped alone: an optimizer of the same class, with the same states."""

    def __init__(self, optimizer: SteppedOptimizer, index: int, position: int) -> None:
        self._optimizer, self._index, self._position = optimizer, index, position
        self._inner: Any = object.__new__(type(optimizer))
        self._inner.__dict__.update(optimizer.__dict__)
        self._inner.param_groups = [{"params": []}]
        self._inner._forget_plans()

    @torch.no_grad()
    def step(self, param: Tensor) -> None:
        group = self._optimizer.param_groups[self._index]
        own = self._inner.param_groups[0]
        if not own["params"]:
            own["params"].append(param)
        # The group may have been edited, its state loaded.
        own.update({name: value for name, value in group.items() if name not in ("params", "param_names")})
        self._inner.state = self._optimizer.state
        if group.get("rounding") == "stochastic":
            # Its place is another: so is its seed.
            chance = Chance(group.get("rounding_seed", 0), 0, self._index)
            own["rounding_seed"] = int(chance.keys([self._position])[0, 0])
        if self._inner._part(0)._parsed_rule.sees_several:  # since an option was changed
            raise RuntimeError(_SEES_SEVERAL.format(type(self._inner).__name__))
        self._inner._plain_step()
        param.grad = None
