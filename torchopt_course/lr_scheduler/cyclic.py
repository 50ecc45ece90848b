"""Cyclical learning rates: up and down, possibly annealed, with a different rate on each batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from ..validation import at_least_zero, fraction
from ..validation.options import above_zero
from .groups import (
    Group,
    Rates,
    copied,
    is_several,
    one_for_each_group,
    plain,
    rates_of,
    separate_tensors,
    set_lr,
    set_momentum,
)
from .triangular import SCALED_BY, SCALES, Mode, ScaleMode, exp_range_scale, saved_attributes, triangular_wave


class CyclicLR(torch_schedulers.CyclicLR):
    r"""Let the learning rate rise and fall between two bounds, and the momentum fall and rise.

    .. math::
        \eta_t &= \eta_\text{base} + (\eta_\text{max} - \eta_\text{base}) \; h_t \; s_t \\
        \beta_t &= \beta_\text{max} - (\beta_\text{max} - \beta_\text{base}) \; h_t \; s_t

    with the height h of a triangular wave, :func:`triangular_wave`, and a scale s that anneals it:

    =================  ==================================  =============================
    ``mode``           s
    =================  ==================================  =============================
    ``"triangular"``   1
    ``"triangular2"``  1 / 2^(cycle - 1)                   half the amplitude each cycle
    ``"exp_range"``    γ^t                                 a little less each iteration
    =================  ==================================  =============================

    Drop-in for :class:`torch.optim.lr_scheduler.CyclicLR`, checkpoints included. Call ``scheduler.step()``
    after each batch. A resumed run goes on exactly, in whatever order optimizer and scheduler are
    constructed and loaded. Groups that are added to the optimizer later get the same bounds, unless these
    were given one by one.

    Args:
        optimizer: whose learning rates and momenta to set.
        base_lr, max_lr: the bounds; lists have one for each group.
        step_size_up: iterations from ``base_lr`` to ``max_lr`` (default 2000; the paper: 2 to 10 epochs).
        step_size_down: iterations back (default: as many).
        mode: see above; of no effect with ``scale_fn``.
        gamma: γ (default 1.0).
        scale_fn: your own scale. A function is not saved in :meth:`state_dict`, a callable object is.
        scale_mode: whether ``scale_fn`` gets the number of the ``"cycle"``, from 1 (default), or of all
            ``"iterations"``, from 0.
        cycle_momentum: cycle ``momentum``, or ``betas[0]`` where there are ``betas`` (default ``True``).
        base_momentum, max_momentum: its bounds (default 0.8 and 0.9), reached at the peak and at the ends of
            a cycle; lists have one for each group.
        last_epoch: -1 (default) starts anew; otherwise the last iteration done, in an optimizer that has
            been loaded.

    Raises:
        ValueError: an option out of range, an optimizer without momentum, lists of a wrong length.
        TypeError: ``optimizer`` is none, or an option is no number.
        KeyError: ``last_epoch`` is given, but the optimizer has never been scheduled.

    Source: lecture, "Cyclical learning rates"; Smith, *Cyclical Learning Rates for Training Neural
    Networks*, WACV 2017, arXiv 1506.01186.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Mode = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: ScaleMode = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        groups = optimizer.param_groups
        size_up, size_down = step_size_up, step_size_up if step_size_down is None else step_size_down
        above_zero("step_size_up", size_up)
        at_least_zero("step_size_down", size_down)
        if scale_fn is None and mode not in SCALED_BY:
            raise ValueError(f"mode {mode!r} is invalid and scale_fn is None (expected {[*SCALED_BY]})")
        if scale_fn is not None and scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"scale_mode {scale_mode!r} is invalid (expected 'cycle' or 'iterations')")
        above_zero("gamma", gamma)
        given: dict[str, Any] = {"base_lr": base_lr, "max_lr": max_lr}
        if cycle_momentum:
            if not {"momentum", "betas"} & set(optimizer.defaults):
                raise ValueError(
                    "optimizer must support momentum or beta1 with `cycle_momentum` option enabled, "
                    f"{type(optimizer).__name__} has neither: pass cycle_momentum=False"
                )
            self.use_beta1 = "betas" in optimizer.defaults
            given |= {"base_momentum": base_momentum, "max_momentum": max_momentum}
        bounds = {name: one_for_each_group(name, value, groups) for name, value in given.items()}
        for name, values in bounds.items():
            for value in values:
                is_beta = "momentum" in name and self.use_beta1
                (fraction if is_beta else at_least_zero)(name, value)

        # Everything has been checked: now the optimizer may change.
        self.max_lrs = bounds["max_lr"]
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums, self.max_momentums = bounds["base_momentum"], bounds["max_momentum"]
        self.total_size = float(size_up) + float(size_down)  # type: ignore[assignment]  # so in torch
        self.step_ratio = float(size_up) / self.total_size
        self.mode = mode
        self.gamma = float(gamma)
        self.scale_mode: ScaleMode = scale_mode if scale_fn is not None else SCALED_BY[mode]
        self._scale_fn_custom = scale_fn
        self._given = given
        separate_tensors(groups)
        if last_epoch == -1:
            for group, lr in zip(groups, bounds["base_lr"], strict=True):
                set_lr(group, lr)
            self._note_momentum_bounds(groups)
        LRScheduler.__init__(self, optimizer, plain(last_epoch))

    def _initial_step(self) -> None:
        # The base class has put the optimizer's `initial_lr` here. That is another number if there was a
        # scheduler before us, and it is base_lr that was asked for.
        base_lrs = one_for_each_group("base_lr", self._given["base_lr"], self.optimizer.param_groups)
        self.base_lrs = [*base_lrs]
        super()._initial_step()

    # -- the schedule ----------------------------------------------------------------------------------

    def scale_fn(self, x: float) -> float:
        """The scale in cycle x or at iteration x, as ``scale_mode`` says."""
        return float((self._scale_fn_custom or self._scale_fn_ref)(x))

    @property
    def _scale_fn_ref(self) -> Callable[[float], float]:  # type: ignore[override]
        """The scale of the mode, under the name that it has in torch's class."""
        return partial(exp_range_scale, self.gamma) if self.mode == "exp_range" else SCALES[self.mode]

    def rise(self, iteration: int) -> float:
        """How far the rates have gone from base (0) to max (1): height times scale."""
        cycle, height = triangular_wave(iteration, self.total_size, self.step_ratio)
        return height * self.scale_fn(cycle if self.scale_mode == "cycle" else iteration)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rates of iteration ``last_epoch``; use :meth:`get_last_lr` to look at them.

        As in torch, :meth:`step` calls it, and then it also sets the momenta.
        """
        rise = self.rise(self.last_epoch)
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
                stacklevel=2,
            )
        elif self.cycle_momentum:
            for group, momentum in zip(self.optimizer.param_groups, self._momenta(rise), strict=True):
                set_momentum(self.optimizer, group, momentum)
        return [low + (high - low) * rise for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def _momenta(self, rise: float) -> list[float]:
        bounds = zip(self.base_momentums, self.max_momentums, strict=True)
        return [high - (high - low) * rise for low, high in bounds]

    # -- the optimizer ---------------------------------------------------------------------------------

    def _update_lr(self, epoch: int | None = None) -> None:
        """Go on to the next iteration, or to the one given, and apply its rates."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.max_lrs):
            self._bound_new_groups(groups)
        self.last_epoch = self.last_epoch + 1 if epoch is None else plain(epoch)
        if len(groups) > 1:
            separate_tensors(groups)
        self._get_lr_called_within_step = True
        try:
            lrs = self.get_lr()
        finally:
            self._get_lr_called_within_step = False
        self._last_lr = [set_lr(group, lr) for group, lr in zip(groups, lrs, strict=True)]

    def _note_momentum_bounds(self, groups: Sequence[Group]) -> None:
        """As torch does: others, such as a later scheduler, may look for them in the groups."""
        if self.cycle_momentum:
            bounds = zip(groups, self.base_momentums, self.max_momentums, strict=False)
            for group, low, high in bounds:
                group["base_momentum"], group["max_momentum"] = low, high

    def _bound_new_groups(self, groups: Sequence[Group]) -> None:
        """Groups were added to the optimizer since we were constructed."""
        missing = len(groups) - len(self.max_lrs)
        one_by_one = [name for name, value in self._given.items() if is_several(value)]
        if missing < 0 or one_by_one:
            raise ValueError(
                f"the optimizer has {len(groups)} parameter groups, but CyclicLR has bounds for "
                f"{len(self.max_lrs)}: make `base_lrs` and `max_lrs` of the scheduler (with cycle_momentum "
                "also `base_momentums` and `max_momentums`) as long"
            )
        for name, value in self._given.items():
            setattr(self, f"{name}s", [*getattr(self, f"{name}s"), *[float(value)] * missing])
        self._note_momentum_bounds(groups)

    # -- checkpoints -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on; :class:`torch.optim.lr_scheduler.CyclicLR` reads it too.

        A ``scale_fn`` that is an object is saved by its attributes. A function cannot be, there is a warning
        for one: give the same to the constructor when you resume.
        """
        not_saved = ("optimizer", "_given", "_scale_fn_custom")
        state = copied({name: value for name, value in vars(self).items() if name not in not_saved})
        state["_scale_fn_custom"] = saved_attributes(self._scale_fn_custom)
        # The rates as they are now: a scheduler that is chained with this one may have changed them.
        # Torch's class would hand them on for ever, so they say when they were taken.
        rates = [rates_of(group) for group in self.optimizer.param_groups]
        state["_applied"] = (self.last_epoch, rates)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict` of this class or of torch's, which is left as it is.

        The learning rates and momenta of that moment are applied to the optimizer, so that it may be loaded
        before or after, or not at all.

        Raises:
            KeyError: the state of another kind of scheduler.
            ValueError: a ``scale_fn`` was saved and this scheduler has none. Nothing has been changed then.
        """
        for name in ("last_epoch", "total_size", "step_ratio", "max_lrs", "base_lrs"):
            if name not in state_dict:
                raise KeyError(f"{name!r} is missing: not the state of a CyclicLR")
        state = copied(state_dict)
        attributes = state.pop("_scale_fn_custom", None)
        applied = state.pop("_applied", None)
        state.pop("_scale_fn_ref", None)  # in the states of older versions of torch
        if attributes is not None and not hasattr(self._scale_fn_custom, "__dict__"):
            raise ValueError(
                "the state holds the attributes of a scale_fn, but this CyclicLR was constructed without one"
            )

        last_lrs = self._last_lr
        if attributes is not None:
            vars(self._scale_fn_custom).update(attributes)
        for name in ("base_lrs", "max_lrs", "base_momentums", "max_momentums"):
            if name in state:
                state[name] = [float(bound) for bound in state[name]]
        vars(self).update(state)

        is_ours = applied is not None and applied[0] == self.last_epoch
        groups = self.optimizer.param_groups
        separate_tensors(groups)
        for group, (lr, momentum) in zip(
            groups, applied[1] if is_ours else self._rates_of_torchs_state(last_lrs), strict=False
        ):
            set_lr(group, lr)
            if self.cycle_momentum and momentum is not None:
                set_momentum(self.optimizer, group, momentum)

    def _rates_of_torchs_state(self, set_by_us: list[float | Tensor]) -> list[Rates]:
        """What to apply when the state does not say it: the schedule's rates, in groups that are still ours.

        A rate that is not the one set by us is the optimizer's own: it has been loaded before us, and may
        hold what a chained scheduler made of our rate.
        """
        iteration = max(self.last_epoch, 0)  # -1 in a SequentialLR that has not come to us yet
        lrs = [float(lr) for lr in self._last_lr]
        momenta = self._momenta(self.rise(iteration)) if self.cycle_momentum else [None] * len(lrs)
        return [
            (lr, momentum) if float(group["lr"]) == float(ours) else rates_of(group)
            for group, lr, momentum, ours in zip(
                self.optimizer.param_groups, lrs, momenta, set_by_us, strict=False
            )
        ]
