"""What every optimizer here is to its user: steps, hooks, checkpoints and reports of engines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .engines.bucket import Scaling
from .engines.prepared_group import Optimizer as Preparable
from .engines.step import Paused, Stepper
from .transforms.skip import not_finite
from .transforms.transform import Transform
from .validation.checkpoints import Declared, refuse_foreign
from .validation.options import make_plain

# The code of every `step` that torch has wrapped to call hooks.
_WRAPPED = Optimizer.profile_hook_step(Optimizer.step).__code__


class Part(Preparable, Declared, Protocol):
    """What declares how a group is stepped."""

    transforms: Sequence[Transform]

    def _restore(
        self,
        group: dict[str, Any],
        before: Mapping[str, Any],
        saved: Mapping[str, Any],
        entries: Mapping[Any, Any],
    ) -> None: ...
    def _complete_group(self, group: dict[str, Any]) -> None: ...


NO_SCALER = (
    "a GradScaler must see all gradients before the first is used, but release_gradients() uses and frees "
    "each as it comes: train in bfloat16, which needs no scaler"
)


class SteppedOptimizer(Optimizer):
    """An optimizer whose groups are stepped together by the engines, each by the rule of one class."""

    _stepper: Stepper
    _step_supports_amp_scaling = False  # torch's word for: GradScaler leaves the unscaling to the step
    _skips_nonfinite = False  # whether a step is left out if one of the gradients is not finite
    # What is being loaded: a checkpoint, and the groups before.
    _loading: tuple[dict[str, Any], list[dict[str, Any]]]

    def _part(self, i: int) -> Part:
        """The optimizer that declares how group ``i`` is stepped."""
        raise NotImplementedError

    def _forget_plans(self) -> None:
        """Begin as if no step had been taken, but for the states."""
        raise NotImplementedError

    def _renew_formula(self) -> bool:
        """Read the rules again if something that they consist of has changed; false if nothing has."""
        raise NotImplementedError

    def _refuse_odd_edits(self) -> None:
        """Groups and state are the user's to edit: what cannot be stepped any more is named."""
        raise NotImplementedError

    # -- checkpoints -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The states and the groups with their options, see :meth:`torch.optim.Optimizer.state_dict`.

        Numbers of numpy that somebody wrote into a group become Python's, in the group too.

        Raises:
            KeyError: there is a state of a parameter that is in no group any more.
        """
        for group in self.param_groups:
            make_plain(group)
        try:
            return super().state_dict()
        except KeyError as error:
            known = {id(param) for group in self.param_groups for param in group["params"]}
            for param in self.state:
                if isinstance(param, Tensor) and id(param) not in known:
                    raise KeyError(
                        f"there is a state of a parameter of shape {tuple(param.shape)} that is in no group "
                        "any more: delete it from optimizer.state"
                    ) from error
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer, also one that ``torch.optim`` has written.

        Raises:
            TypeError, KeyError, ValueError: it is not one of this optimizer's, see
                :func:`torchopt_course.validation.checkpoints.refuse_foreign`. Nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dictionary, got {type(state_dict).__name__}")
        self._refuse_while_paused()
        # As the last of the pre-hooks: those of the user may make a foreign state_dict fit.
        check = self.register_load_state_dict_pre_hook(self._look_at)  # type: ignore[arg-type]
        try:
            super().load_state_dict(state_dict)
        finally:
            check.remove()
            self.__dict__.pop("_loading", None)

    @staticmethod
    def _look_at(optimizer: SteppedOptimizer, state_dict: dict[str, Any]) -> None:
        """Refuse what does not fit, before anything is changed."""
        refuse_foreign(optimizer, state_dict)
        optimizer._loading = state_dict, optimizer.param_groups

    def _mend_groups(self) -> None:
        """Complete groups and states that have come out of a checkpoint or a copy."""
        loaded = self.__dict__.pop("_loading", None)
        for i, group in enumerate(self.param_groups):
            part = self._part(i)
            if loaded is not None:
                saved, before = loaded
                part._restore(group, before[i], saved["param_groups"][i], saved["state"])
            part._complete_group(group)

    # -- the step ---------------------------------------------------------------------------------------

    @contextmanager
    def _paused(self, why: str) -> Iterator[None]:
        """Within, steps and checkpoints to load are refused."""
        self._refuse_while_paused()
        before, self._stepper = self._stepper, Paused(why, self._stepper.groups)
        try:
            yield
        finally:
            self._stepper = before

    def _refuse_while_paused(self) -> None:
        if isinstance(self._stepper, Paused):
            raise RuntimeError(self._stepper.why)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, *args: Any, **kwargs: Any) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss anew, with gradients, and returns it.

        Raises:
            RuntimeError: a gradient or a state does not fit its parameter. Nothing has been updated.
        """
        if torch.compiler.is_dynamo_compiling():
            return self._untraced_step(*args, **kwargs)
        # A subclass with a `step` of its own has been wrapped by torch, and calls this one from inside.
        outer = type(self).step
        is_outermost = outer is SteppedOptimizer.step or getattr(outer, "__code__", None) is not _WRAPPED
        if is_outermost and (torch._C._autograd._profiler_enabled() or any(self._hooks)):
            return self._listened_step(*args, **kwargs)  # hooks see what the user gave, and how
        return self._plain_step(*args, **kwargs) if args or kwargs else self._plain_step()

    # torch would wrap `step` to call hooks and to tell the profiler, at a cost larger than that of a small
    # step. We take the same wrapper, but only when there is somebody who listens.
    step.hooked = True  # type: ignore[attr-defined]

    def _plain_step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._stepper.turn:
            found = self._found_nonfinite() if self._skips_nonfinite else None
            if found is True:
                self._refuse_while_paused()
                return loss
            prepared = self._stepper.prepared
            if found is None and prepared is not None and prepared.take(self):  # type: ignore[arg-type]
                return loss
            if self._renew_formula():
                self._stepper.forget()
            recording = torch.is_grad_enabled()
            torch._C._set_grad_enabled(bool(self.defaults.get("differentiable")))
            try:
                self._stepper.step(self, self._scaling(found))
            finally:
                torch._C._set_grad_enabled(recording)
        return loss

    # torch.compile has nothing to gain from a step that is compiled already: it calls it as it is.
    @_disable_dynamo
    def _untraced_step(self, *args: Any, **kwargs: Any) -> float | None:
        # Not `self.step`, which may be the one that is being compiled.
        loss: float | None = SteppedOptimizer.step(self, *args, **kwargs)
        return loss

    # What is said of wrong arguments is said of `step`.
    _plain_step.__qualname__ = step.__qualname__
    step.__signature__ = inspect.signature(_plain_step)  # type: ignore[attr-defined]
    _listened_step = Optimizer.profile_hook_step(_plain_step)

    def _found_nonfinite(self) -> Tensor | Literal[True] | None:
        """Whether a gradient is not finite; ``None`` if all are, a tensor where only a device knows."""
        grads = [param.grad for group in self.param_groups for param in group["params"]]
        found = not_finite(grad for grad in grads if grad is not None)
        if not found.is_cpu:
            return found
        return True if found else None

    def _scaling(self, found_nonfinite: Tensor | None) -> Scaling | None:
        """What ``GradScaler`` has left to do, and whether a step is to be left out, if anything."""
        found_inf = self.__dict__.get("found_inf")
        if found_inf is not None and "_released" in self.__dict__:
            raise RuntimeError(NO_SCALER)
        if found_nonfinite is not None:
            found_inf = found_nonfinite if found_inf is None else found_nonfinite + found_inf
        return None if found_inf is None else Scaling(self.__dict__.get("grad_scale"), found_inf)

    def _capture_health_check(self) -> None:
        """Whether a graph that is being captured would replay this step, and not the same one each time.

        Raises:
            RuntimeError: a step count is on the host, which a replay does not ask.
        """
        if all("capturable" in group for group in self.param_groups):
            # torch's own, under today's name or that of before torch 2.14
            name = "_accelerator_graph_capture_health_check"
            (getattr(self, name, None) or self._cuda_graph_capture_health_check)()
        elif torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            for i, group in enumerate(self.param_groups):
                for position, param in enumerate(group["params"]):
                    step = self.state.get(param, {}).get("step")
                    if isinstance(step, Tensor) and step.is_cpu:
                        raise RuntimeError(
                            f"Attempting CUDA graph capture of step() for an instance of "
                            f"{type(self).__name__}, but the step count of {self._where(i, position)} is on "
                            "the CPU, so each replay would be the same step: with fused=True it is counted "
                            "on the device"
                        )

    @property
    def _hooks(self) -> tuple[Mapping[int, object], ...]:
        return (
            self._optimizer_step_pre_hooks,
            self._optimizer_step_post_hooks,
            _global_optimizer_pre_hooks,
            _global_optimizer_post_hooks,
        )

    # -- reports ---------------------------------------------------------------------------------------

    def engine_report(self) -> str:
        """Which engine took which parameters in the last step, and why no faster one; one line per case."""
        if not self._stepper.groups:
            return "no step() yet: engines are chosen when gradients are there"
        self._refuse_odd_edits()
        cases: dict[tuple[str, str], list[str]] = {}
        elements: dict[tuple[str, str], int] = {}
        seen: set[int] = set()
        for i, group in enumerate(self.param_groups):
            engines = self._stepper.engines(i)
            for position, param in enumerate(group["params"]):
                if id(param) in seen:
                    continue
                seen.add(id(param))
                case = engines.get(position, ("no engine", "no gradient"))
                cases.setdefault(case, []).append(self._where(i, position))
                elements[case] = elements.get(case, 0) + param.numel()
        return "\n".join(
            f"{engine}: {len(where)} parameter{'s' * (len(where) > 1)}, {elements[engine, reason]:,} elements"
            + (f", because {reason} (first: {where[0]})" if reason else "")
            for (engine, reason), where in cases.items()
        )

    def _where(self, i: int, position: int) -> str:
        names: Any = self.param_groups[i].get("param_names")
        is_named = isinstance(names, list | tuple) and position < len(names)
        return f"parameter {position} of group {i}" + (f" ({names[position]})" if is_named else "")

    def _place_of(self, param: Tensor) -> str:
        for i, group in enumerate(self.param_groups):
            for position, other in enumerate(group["params"]):
                if other is param:
                    return self._where(i, position)
        return f"a parameter of shape {tuple(param.shape)}"
