"""Stepping during the backward pass: each gradient is used as soon as it is there, and freed."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import _engine_run_backward
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from .engines.storage import PLACE, Chance
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
        self._singles: list[_Single] = []
        self._accumulates = False
        self._backward_pass = -1
        self._rounding_steps: dict[int, int] = {}  # of each group that is stepped in this pass
        self._lock = Lock()  # autograd has a thread for each device
        self._supported_scaling = optimizer._step_supports_amp_scaling

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "this belongs to hooks of these very parameters, which are not copied or pickled with them: call "
            "release_gradients() for the copies"
        )

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
        with self._lock:
            backward_pass = torch._C._current_graph_task_id()
            if backward_pass != self._backward_pass:
                _refuse_pass_in_a_pass()
                _refuse_hooks_before(self._optimizer)
                self._backward_pass = backward_pass
                self._rounding_steps = {}
            place = single.find(param)
            if place is not None:  # else it has been taken out of the optimizer
                single.step(param, place, self._rounding_step(place[0]))

    def _rounding_step(self, index: int) -> int:
        """How many steps a group has taken, of which chance is a function: one in each backward pass."""
        group = self._optimizer.param_groups[index]
        if index not in self._rounding_steps:
            self._rounding_steps[index] = Chance.of(group, index).step
            if group.get("rounding") == "stochastic":
                group["rounding_step"] = self._rounding_steps[index] + 1
        return self._rounding_steps[index]


def _hook(
    released: weakref.ref[ReleasedGradients], single: weakref.ref[_Single], handles: list[RemovableHandle]
) -> Callable[[Tensor], None]:
    """What a parameter calls. It owns nothing: torch's garbage collector does not see into such hooks."""

    def use(param: Tensor) -> None:
        owner, one = released(), single()
        if owner is None or one is None:
            for handle in handles:
                handle.remove()
            raise RuntimeError(
                "release_gradients() was called with an optimizer that is gone by now: keep it, or the "
                "handle that was returned (the model's gradients wait again from now on)"
            )
        owner._use(one, param)

    return use


def _refuse_pass_in_a_pass() -> None:
    """A pass that a node of another pass has called."""
    frame: FrameType | None = sys._getframe()
    in_pass = False
    while frame is not None:
        in_pass |= frame.f_code is _engine_run_backward.__code__
        if in_pass and frame.f_code is BackwardCFunction.apply.__code__:
            raise RuntimeError(
                "released gradients are used in a backward pass that another one has started, as checkpoint("
                "..., use_reentrant=True) does: a parameter that takes part in several would be stepped with "
                "a part of its gradient each time; give use_reentrant=False"
            )
        frame = frame.f_back


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
    ``GradScaler``, data parallel wrappers; nor where one backward pass starts another, as
    ``checkpoint(..., use_reentrant=True)`` does. What changes one gradient at a time, as
    ``param.register_hook`` with a ``clamp``, works. What fails in the middle of a backward pass leaves those
    parameters stepped that had their gradients.

    Args:
        model: its parameters that require gradients, as far as they are the optimizer's, are released.
        optimizer: one of this package's, :class:`Mixed` too, or a subclass of :class:`ElementwiseOptimizer`
            or :class:`TensorOptimizer`.

    Returns:
        A handle that removes the hooks, and switches to accumulation. Keep it, or the optimizer; the hooks
        keep neither of them, and fail when both are gone.

    Raises:
        TypeError: not a module, or not such an optimizer.
        ValueError: the optimizer has a parameter that is not the model's, or none of its parameters.
        RuntimeError: a rule with numbers over several tensors, ``differentiable=True``, a ``GradScaler`` at
            work (it is refused later as well), data parallel, a ``step`` of the class's own or a hook
            before it, or released already. In the backward pass: one in another one, an optimizer that is
            gone.
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
                single = _Single(optimizer, (i, position))
                released._singles.append(single)
                hook = _hook(weakref.ref(released), weakref.ref(single), released._handles)
                released._handles.append(param.register_post_accumulate_grad_hook(hook))
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
    _refuse_hooks_before(optimizer)
    if optimizer._skips_nonfinite:
        raise RuntimeError("skip_nonfinite must see all gradients before the first is used")
    for module in model.modules():
        if type(module).__name__ in _REDUCERS:
            raise RuntimeError(
                f"{type(module).__name__} changes gradients after the backward pass has left them, "
                "and they would be used and gone by then"
            )


def _refuse_hooks_before(optimizer: SteppedOptimizer) -> None:
    if optimizer._optimizer_step_pre_hooks:
        raise RuntimeError("the optimizer has a hook before its step, which would find no gradients")


class _Single:
    """One parameter of an optimizer, stepped alone: an optimizer of the same class, with the same states.

    Args:
        place: its group's index and its position there.
    """

    def __init__(self, optimizer: SteppedOptimizer, place: tuple[int, int]) -> None:
        self._optimizer, self._place = optimizer, place
        self._inner: Any = object.__new__(type(optimizer))
        self._inner.__dict__.update(optimizer.__dict__)
        self._inner.param_groups = [{"params": []}]
        self._inner._forget_plans()

    def find(self, param: Tensor) -> tuple[int, int] | None:
        """Where the parameter stands now: groups are the user's to edit."""
        groups = self._optimizer.param_groups
        index, position = self._place
        if index < len(groups):
            at_place = groups[index]["params"][position : position + 1]
            if at_place and at_place[0] is param:
                return self._place
        for index, group in enumerate(groups):
            for position, each in enumerate(group["params"]):
                if each is param:
                    self._place = index, position
                    return self._place
        return None

    @torch.no_grad()
    def step(self, param: Tensor, place: tuple[int, int], rounding_step: int) -> None:
        group = self._optimizer.param_groups[place[0]]
        own = self._inner.param_groups[0]
        if not own["params"]:
            own["params"].append(param)
        # The group may have been edited, its state loaded.
        own.update({name: value for name, value in group.items() if name not in ("params", "param_names")})
        self._inner.state = self._optimizer.state
        if group.get("rounding") == "stochastic":
            own |= {"rounding_step": rounding_step, PLACE: place}
        if self._inner._part(0)._parsed_rule.sees_several:  # since an option was changed
            raise RuntimeError(_SEES_SEVERAL.format(type(self._inner).__name__))
        self._inner._plain_step()
        param.grad = None
