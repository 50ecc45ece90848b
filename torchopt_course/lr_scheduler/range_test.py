"""The LR range test: raise the learning rate batch by batch and watch the loss, to find CyclicLR's bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .groups import Group, set_lr
from .snapshot import put_back_afterwards

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

Spacing: TypeAlias = Literal["exponential", "linear"]
# One iteration of training: takes a batch, returns the loss, or the loss and the accuracy.
Step: TypeAlias = Callable[[Any], SupportsFloat | tuple[SupportsFloat, SupportsFloat]]


def lr_at(i: int, iterations: int, start_lr: float, end_lr: float, spacing: Spacing) -> float:
    """The learning rate of iteration i = 0, 1, ..., iterations - 1, from ``start_lr`` to ``end_lr``."""
    share = i / (iterations - 1)
    if spacing == "linear":
        return start_lr + (end_lr - start_lr) * share
    return float(start_lr * (end_lr / start_lr) ** share)


def lr_range_test(
    step: Step,
    batches: Iterable[Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    iterations: int = 300,
    spacing: Spacing = "exponential",
    smoothing: float = 0.05,
    diverge_at: float = 5.0,
    also: Iterable[Any] = (),
) -> RangeTest:
    r"""Train for some iterations with a rising learning rate, put everything back, and return the curve.

    Iteration i of n uses the learning rate

    .. math::
        \eta_i = \eta_\text{start} \left(\frac{\eta_\text{end}}{\eta_\text{start}}\right)^{i/(n-1)}
        \qquad \text{or, linear,} \qquad
        \eta_i = \eta_\text{start} + (\eta_\text{end} - \eta_\text{start}) \, \frac{i}{n-1}

    and the curve is smoothed by :math:`m \leftarrow m + s (\ell - m)`, corrected for its start at 0.

    ``step`` is your own training step, with all that belongs to it, such as autocast, a gradient scaler or
    clipping::

        def step(batch):
            inputs, targets = batch
            optimizer.zero_grad()
            scores = model(inputs)
            loss = F.cross_entropy(scores, targets)
            loss.backward()
            optimizer.step()
            return loss  # or: return loss, (scores.argmax(1) == targets).float().mean()

        found = lr_range_test(step, loader, model, optimizer)
        scheduler = CyclicLR(optimizer, found.base_lr, found.max_lr, step_size_up=4 * len(loader))

    Afterwards model, optimizer and random numbers are as before, also when ``step`` raises or on Ctrl-C; see
    :func:`~torchopt_course.lr_scheduler.snapshot.put_back_afterwards`. The copies take as much memory as
    model and optimizer. Groups with learning rates of their own keep their ratios: the rates of the test are
    those of the group with the largest.

    Args:
        step: takes a batch, trains on it, returns the loss, or the loss and the accuracy: numbers or tensors
            of one. On several processes let it return the mean over all, so that all stop together.
        batches: a ``DataLoader``, or anything to iterate over, from its beginning; begun again when it ends.
            An iterator, unlike a loader, loses the batches that are taken from it.
        model: what ``step`` trains; ``nn.ModuleList([a, b])`` for several.
        optimizer: what it trains with.
        start_lr, end_lr: where the rate begins and ends (default 1e-7 and 10).
        iterations: how many batches (default 300).
        spacing: ``"exponential"`` (default), or ``"linear"`` as in the paper, where you know the magnitude.
        smoothing: s, the weight of the newest loss, in (0, 1] (default 0.05; 1 does not smooth).
        diverge_at: stop when the smoothed loss is this many times its lowest (default 5).
        also: further objects to put back that have a ``state_dict``, such as a ``GradScaler``.

    Raises:
        ValueError: an option out of range, no batches.
        TypeError: ``step`` returns no number.

    Source: lecture, "Cyclical learning rates"; Smith, arXiv 1506.01186, section 3.3.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    check_options(start_lr, end_lr, iterations, spacing, smoothing, diverge_at)
    lrs: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    accuracies: list[float] = []
    stopped, average, lowest = f"after all {iterations} iterations", 0.0, math.inf
    with put_back_afterwards(model, optimizer, also, generators_of(batches)):
        shares = shares_of(optimizer.param_groups)
        feed = endless(batches)
        for i in range(iterations):
            lr = lr_at(i, iterations, start_lr, end_lr, spacing)
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                set_lr(group, lr * share)
            loss, accuracy = as_numbers(step(next(feed)))
            if not math.isfinite(loss):
                stopped = f"at learning rate {lr:.3g}, where the loss was {loss}"
                break
            lrs.append(lr)
            losses.append(loss)
            accuracies.append(accuracy)
            average += smoothing * (loss - average)
            smoothed.append(average / (1 - (1 - smoothing) ** (i + 1)))
            lowest = min(lowest, smoothed[-1])
            if smoothed[-1] > lowest + (diverge_at - 1) * abs(lowest):
                stopped = f"at learning rate {lr:.3g}, where the loss was {diverge_at:g} times its lowest"
                break
    if all(map(math.isnan, accuracies)):
        accuracies = []
    base_lr, max_lr, how = suggest_bounds(lrs, losses, smoothed, smoothing)
    return RangeTest(lrs, losses, smoothed, accuracies, spacing, stopped, base_lr, max_lr, how)


def suggest_bounds(
    lrs: list[float], losses: list[float], smoothed: list[float], smoothing: float
) -> tuple[float | None, float | None, str]:
    """Where the loss begins to fall and where it has nearly fallen: ``base_lr``, ``max_lr``, and the reason.

    The paper takes the rate at which the accuracy starts to rise, and that at which it slows, becomes ragged
    or falls. Here: a tenth and nine tenths of the fall of the smoothed loss. An average of the past lags
    behind, by (1 - s) / s iterations, so both are read that much earlier, and the average's first values,
    too early for that, are not looked at.
    """
    lag = round((1 - smoothing) / smoothing)
    settled = smoothed[lag:]
    if len(settled) < 2:
        return None, None, f"no suggestion: the smoothed loss needs more than {lag + 1} iterations to settle"
    bottom = settled.index(min(settled))
    top = settled.index(max(settled[: bottom + 1]))
    fall = settled[top] - settled[bottom]
    seen = losses[: lag + bottom + 1]  # neighbours differ by noise, and hardly by the trend
    noise = math.sqrt(sum((b - a) ** 2 / 2 for a, b in pairwise(seen)) / (len(seen) - 1 or 1))
    if fall <= 2 * noise:
        return None, None, (
            f"no suggestion: the smoothed loss fell by {fall:.3g}, batches differ by {noise:.3g}; "
            "try more iterations, larger batches or a lower start_lr"
        )  # fmt: skip

    def first_below(share: float) -> float:
        return next(
            lr
            for lr, loss in zip(lrs[top:], settled[top:], strict=False)
            if loss <= settled[top] - share * fall
        )

    base_lr, max_lr = first_below(0.1), first_below(0.9)
    how = (
        f"base_lr={base_lr:.3g} and max_lr={max_lr:.3g}: there a tenth and nine tenths were done of the fall "
        f"of the smoothed loss from {settled[top]:.3g} to {settled[bottom]:.3g}"
    )
    return base_lr, max_lr, how


@dataclass(frozen=True)
class RangeTest:
    """The curve of an LR range test, and what it suggests.

    Attributes:
        lrs, losses, smoothed: for each iteration, the loss as it was and smoothed.
        accuracies: likewise, empty if ``step`` returned none.
        spacing: of the learning rates.
        stopped: where the test ended, and why.
        base_lr, max_lr: bounds for :class:`CyclicLR`, ``None`` if the loss did not clearly fall.
        how: how they were found, or why not.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    accuracies: list[float]
    spacing: Spacing
    stopped: str
    base_lr: float | None
    max_lr: float | None
    how: str

    def __str__(self) -> str:
        return f"{self.how}. The test ended {self.stopped}."

    def figure(self) -> Figure:
        """The curve with the suggested bounds; save it with ``figure.savefig(path)``. Needs matplotlib."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.lrs, self.losses, color="tab:blue", alpha=0.3, linewidth=1, label="loss")
        axes.plot(self.lrs, self.smoothed, color="tab:blue", linewidth=2, label="smoothed")
        axes.set_xscale("log" if self.spacing == "exponential" else "linear")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        if self.losses:  # the explosion at the end would flatten everything before it
            low, high = min(self.losses), max(self.smoothed[: len(self.smoothed) // 2 + 1])
            height = high - low or 1.0
            axes.set_ylim(low - 0.1 * height, high + 0.7 * height)
        if self.base_lr is not None and self.max_lr is not None:
            axes.axvspan(
                self.base_lr,
                self.max_lr,
                color="tab:orange",
                alpha=0.2,
                label=f"base_lr {self.base_lr:.2g} to max_lr {self.max_lr:.2g}",
            )
        if self.accuracies:
            axes.plot([], [], color="tab:green", linewidth=1, label="accuracy")  # for the legend
            right = axes.twinx()
            right.plot(self.lrs, self.accuracies, color="tab:green", alpha=0.5, linewidth=1)
            right.set_ylabel("accuracy")
        axes.legend(loc="upper left")
        return figure

    def write(self, writer: SummaryWriter, tag: str = "lr_range_test") -> None:
        """Put curve, picture and suggestion into TensorBoard; the steps are the test's iterations."""
        for i, (lr, loss, smoothed) in enumerate(zip(self.lrs, self.losses, self.smoothed, strict=True)):
            writer.add_scalar(f"{tag}/learning_rate", lr, i)
            writer.add_scalar(f"{tag}/loss", loss, i)
            writer.add_scalar(f"{tag}/smoothed_loss", smoothed, i)
        for i, accuracy in enumerate(self.accuracies):
            writer.add_scalar(f"{tag}/accuracy", accuracy, i)
        writer.add_figure(tag, self.figure())
        writer.add_text(tag, str(self))


# ---------------------------------------------------------------- the details


def check_options(
    start_lr: float, end_lr: float, iterations: int, spacing: str, smoothing: float, diverge_at: float
) -> None:
    if spacing not in ("exponential", "linear"):
        raise ValueError(f"spacing {spacing!r} is unknown (expected 'exponential' or 'linear')")
    if not (start_lr > 0 or (start_lr == 0 and spacing == "linear")):
        raise ValueError(f"Invalid start_lr: {start_lr} (expected a number > 0; with linear spacing also 0)")
    if not start_lr < end_lr < math.inf:
        raise ValueError(f"Invalid end_lr: {end_lr} (expected a number above start_lr, {start_lr})")
    if not (iterations >= 2 and iterations == int(iterations)):
        raise ValueError(f"Invalid iterations: {iterations} (expected a whole number from 2 up)")
    if not 0 < smoothing <= 1:
        raise ValueError(f"Invalid smoothing: {smoothing} (expected a number in (0, 1])")
    if not diverge_at > 1:
        raise ValueError(f"Invalid diverge_at: {diverge_at} (expected a number > 1)")


def shares_of(groups: list[Group]) -> list[float]:
    """Each group's learning rate, as a share of the largest."""
    lrs = [float(group["lr"]) for group in groups]
    largest = max(lrs)
    return [lr / largest if largest else 1.0 for lr in lrs]


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, again and again."""
    count = 0
    while True:
        before = count
        for batch in batches:
            count += 1
            yield batch
        if count == before:
            again = ": give something that can be begun again, such as a DataLoader" if count else ""
            raise ValueError(f"`batches` ended after {count} batches{again}")


def generators_of(batches: Any) -> list[torch.Generator]:
    """A loader may shuffle with random numbers of its own."""
    samplers = [batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)]
    found = [getattr(one, "generator", None) for one in samplers]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def as_numbers(result: Any) -> tuple[float, float]:
    """The loss and the accuracy that ``step`` returned; NaN where it gave no accuracy."""
    loss, accuracy = result if isinstance(result, tuple) and len(result) == 2 else (result, math.nan)
    try:
        return as_number(loss), as_number(accuracy)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"`step` must return the loss, or the loss and the accuracy, as numbers; it returned {result!r}"
        ) from error


def as_number(value: SupportsFloat) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)
