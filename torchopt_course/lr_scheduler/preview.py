"""What a schedule will do, seen before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchPlateau

from .groups import Group, rates_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Schedule:
    """The rates of each step: ``lrs[step][group]``, and ``momenta`` likewise.

    A momentum is that of the group, or its ``betas[0]``; ``nan`` where an optimizer has neither.
    """

    lrs: list[list[float]]
    momenta: list[list[float]]

    def figure(self) -> Figure:
        """Both over the steps, a line for each group; no momenta where there are none. Needs matplotlib.

        The learning rates are on a logarithmic scale if half of them are below a tenth of the highest.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        has_momenta = any(momentum == momentum for momenta in self.momenta for momentum in momenta)
        if has_momenta:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
            lower.plot(self.momenta)
            lower.set_ylabel("momentum")
        else:
            upper = lower = figure.add_subplot()
        upper.plot(self.lrs)
        upper.set_ylabel("learning rate")
        lower.set_xlabel("step")
        rates = sorted(lr for lrs in self.lrs for lr in lrs)
        if rates and rates[0] > 0 and rates[len(rates) // 2] < rates[-1] / 10:
            upper.set_yscale("log")  # most of them would lie on the axis
        if self.lrs and len(self.lrs[0]) > 1:
            upper.legend([f"group {i}" for i in range(len(self.lrs[0]))])
        return figure


def preview_schedule(
    make_scheduler: Callable[[Optimizer], LRScheduler],
    steps: int,
    *,
    like: Optimizer | None = None,
    metrics: Iterable[float] | None = None,
) -> Schedule:
    """The learning rates and momenta that a schedule gives to each of the next steps.

    No optimizer is touched: the scheduler gets a stand-in that only has parameter groups::

        schedule = preview_schedule(lambda optimizer: CyclicLR(optimizer, 0.01, 0.1, 200), 1000)
        schedule.figure().savefig("schedule.png")

    Args:
        make_scheduler: makes any scheduler of torch's or ours for the optimizer that it is given.
        steps: how many steps to show.
        like: an optimizer whose groups the stand-in copies (default: one group with learning rate 1 and
            momentum 0.9). With ``as_lr(optimizer, "weight_decay")`` the rates are those of this option.
        metrics: for :class:`ReduceLROnPlateau`, what it sees after each step.

    Raises:
        ValueError: negative ``steps``, fewer metrics than steps, a plateau scheduler without any, or a
            scheduler of another optimizer than the one given to ``make_scheduler``.
        TypeError: an argument of another kind, or ``make_scheduler`` returns no scheduler.
    """
    if not hasattr(steps, "__index__"):
        raise TypeError(f"Invalid steps: {steps!r} (expected a whole number)")
    if steps < 0:
        raise ValueError(f"Invalid steps: {steps} (expected a number >= 0)")
    if not (like is None or isinstance(like, Optimizer)):
        raise TypeError(f"like must be an Optimizer, got {like!r}")
    optimizer = stand_in(like)
    example = "`lambda optimizer: StepLR(optimizer, 30)`"
    if not callable(make_scheduler):
        raise TypeError(f"`make_scheduler` must be a function, as {example}, got {make_scheduler!r}")
    scheduler = make_scheduler(optimizer)
    if not hasattr(scheduler, "step"):
        raise TypeError(f"`make_scheduler` must return a scheduler, as {example} does, not {scheduler!r}")
    if (scheduled := getattr(scheduler, "optimizer", optimizer)) is not optimizer:
        raise ValueError(
            f"the {type(scheduler).__name__} belongs to an optimizer of its own, {type(scheduled).__name__}: "
            f"`make_scheduler` must make it for the one given, as {example}, which for another option "
            "is one like=as_lr(optimizer, option)"
        )
    seen = None if metrics is None else list(metrics)
    needs_metrics = isinstance(scheduler, TorchPlateau)
    if needs_metrics and (seen is None or len(seen) < steps):
        raise ValueError(f"a plateau needs {steps} metrics, got {'none' if seen is None else len(seen)}")

    lrs, momenta = [], []
    for i in range(steps):
        rates = [rates_of(group) for group in optimizer.param_groups]
        lrs.append([lr for lr, _ in rates])
        momenta.append([float("nan") if momentum is None else momentum for _, momentum in rates])
        optimizer.step()
        if isinstance(scheduler, TorchPlateau) and seen is not None:
            scheduler.step(seen[i])
        else:
            scheduler.step()
    return Schedule(lrs, momenta)


class StandIn(Optimizer):
    """Has the options of an optimizer's groups, and a parameter in each that it never changes."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing to do; schedulers want to see it called."""


def stand_in(like: Optimizer | None) -> StandIn:
    """With the name of the one that it stands in for: schedulers use it in their messages."""
    if like is None:
        return StandIn([torch.zeros(())], {"lr": 1.0, "momentum": 0.9})
    copies: dict[int, Tensor] = {}  # groups that share a tensor do so here too
    groups = [options_of(group, copies) for group in like.param_groups]
    named: type[StandIn] = type(type(like).__name__, (StandIn,), {})
    return named(
        [{**group, "params": [torch.zeros(())]} for group in groups], own_copy(like.defaults, copies)
    )


def options_of(group: Group, copies: dict[int, Tensor]) -> dict[str, Any]:
    # Without `initial_lr`: that is left behind by a scheduler which has run, and this one begins anew.
    left_out = ("params", "param_names", "initial_lr")
    return own_copy({name: value for name, value in group.items() if name not in left_out}, copies)


def own_copy(options: dict[str, Any], copies: dict[int, Tensor]) -> dict[str, Any]:
    """Tensors among the options, also in a tuple of betas, are copied: schedules write into them."""

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return copies.setdefault(id(value), value.detach().clone())
        return tuple(map(copy, value)) if isinstance(value, tuple) else value

    return {name: copy(value) for name, value in options.items()}
